"""Words that a caption does not end on: a search that knows no good next word may stop before it."""

from __future__ import annotations

import torch
from torch import Tensor

from model.vocabulary import Vocabulary

# English, and no word that may well stand last in another language, such as "an" or "in". Fewer than those
# that training.evaluation.breakdown counts as faults, which bind nobody.
NEVER_LAST = frozenset(("a", "the", "and", "of", "with", "its", "their"))


def dangling_ids(vocabulary: Vocabulary) -> frozenset[int]:
    """The ids of ``NEVER_LAST``, of those that the vocabulary has."""
    return frozenset(vocabulary.encode(sorted(NEVER_LAST))) - {vocabulary.unk_id}


def without_dangling_ends(log_probs: Tensor, last: Tensor, dangling: frozenset[int]) -> Tensor:
    """Log-probabilities with that of the end at -inf where the caption would end on one of ``dangling``.

    Args:
        log_probs: (N, V) of the next word.
        last: (N,) ids of the words before it.
        dangling: ids.
    """
    is_dangling = torch.isin(last, torch.tensor(sorted(dangling), dtype=last.dtype, device=last.device))
    ends = torch.zeros_like(log_probs, dtype=torch.bool)
    ends[:, Vocabulary.end_id] = is_dangling
    return log_probs.masked_fill(ends, -torch.inf)
