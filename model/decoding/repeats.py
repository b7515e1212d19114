"""Which words a caption may not say again: people say "a dog and a cat", never "a dog and a dog"."""

from __future__ import annotations

import torch
from torch import Tensor

from model.vocabulary import Vocabulary

# Pairs of these come twice in good captions: "in a red shirt in a field".
LINKING_WORDS = frozenset(
    ("a", "an", "the", "his", "her", "their", "its", "it", "that", "this", "who", "which")
    + ("and", "or", "as", "while", "is", "are")
    + ("of", "in", "on", "at", "to", "from", "with", "for", "by", "near", "over", "under", "through")
    + ("into", "onto", "up", "down", "next", "front")
)


def linking_ids(vocabulary: Vocabulary) -> frozenset[int]:
    """The ids of ``LINKING_WORDS``, of those that the vocabulary has."""
    return frozenset(vocabulary.encode(sorted(LINKING_WORDS))) - {vocabulary.unk_id}


def without_repeats(log_probs: Tensor, history: Tensor, linking: frozenset[int]) -> Tensor:
    """Log-probabilities with those at -inf that would say a pair of successive words a second time.

    Args:
        log_probs: (N, V) of the next word.
        history: (N, T) the ids so far, the start token first.
        linking: ids; a pair of two of them may come again.
    """
    again = (
        (history[:, :-1] == history[:, -1:]).nonzero().tolist()
    )  # places where the last word was said before
    said = history.tolist()
    pairs = [(row, said[row][place + 1], said[row][place]) for row, place in again]
    banned = [(row, word) for row, word, before in pairs if not linking.issuperset((before, word))]
    if not banned:
        return log_probs
    rows, words = (torch.tensor(part, device=log_probs.device) for part in zip(*banned, strict=True))
    return log_probs.index_put((rows, words), log_probs.new_tensor(-torch.inf))
