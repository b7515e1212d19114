"""What a caption does not end on: a search that knows no good next word may stop before it.

People hardly ever end on "a" or "a white", and often on "in white". A table of such phrases, learned from the
training captions, is kept with the network; of its phrases that match the end of a caption the longest
decides. Captioners without a table refuse a few English words (``NEVER_LAST``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.vocabulary import Vocabulary

LONGEST = 4  # words of a phrase

# English, and no word that may well stand last in another language, such as "an" or "in". Fewer than those
# that training.breakdown counts as faults, which bind nobody.
NEVER_LAST = frozenset(("a", "the", "and", "of", "with", "its", "their"))


class EndingTable(nn.Module):
    """The phrases that decide whether a caption may end, as they are stored with the network."""

    phrases: Tensor  # (rows, LONGEST), int32, ids, filled up with Vocabulary.pad_id
    dangling: Tensor  # (rows,), bool: no caption ends on it; false: it may, whatever shorter phrases say

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("phrases", torch.full((rows, LONGEST), Vocabulary.pad_id, dtype=torch.int32))
        self.register_buffer("dangling", torch.zeros(rows, dtype=torch.bool))


@dataclass(frozen=True)
class Endings:
    """Which captions may end."""

    table: dict[tuple[int, ...], bool]  # of a phrase in ids, whether it dangles

    @classmethod
    def of_table(cls, table: EndingTable) -> Endings:
        """The table of a trained network; later changes of it are not seen."""
        rows = zip(table.phrases.tolist(), table.dangling.tolist(), strict=True)
        return cls({tuple(i for i in ids if i != Vocabulary.pad_id): dangles for ids, dangles in rows})

    @classmethod
    def of_words(cls, vocabulary: Vocabulary) -> Endings:
        """No caption ends on one of ``NEVER_LAST``."""
        ids = set(vocabulary.encode(sorted(NEVER_LAST))) - {vocabulary.unk_id}
        return cls({(index,): True for index in ids})

    def dangles(self, ids: Sequence[int]) -> bool:
        """Whether a caption of these ids, without its end token, dangles."""
        ends = (tuple(ids[-length:]) for length in range(min(LONGEST, len(ids)), 0, -1))
        return next((self.table[end] for end in ends if end in self.table), False)

    def forbid(self, log_probs: Tensor, captions: Iterable[Sequence[int]]) -> Tensor:
        """Log-probabilities (N, V) of the next word, the end at -inf where N ``captions`` dangle."""
        dangling = [row for row, ids in enumerate(captions) if self.dangles(ids)]
        if not dangling:
            return log_probs
        rows = torch.tensor(dangling, device=log_probs.device)
        ends = torch.full_like(rows, Vocabulary.end_id)
        return log_probs.index_put((rows, ends), log_probs.new_tensor(-torch.inf))
