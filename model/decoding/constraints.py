"""Constraints of decoding: which words may come next.

``build_constraints`` is the one place that knows them all: add a constraint here, and beam search applies it.
"""

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.options import DecodingOptions
from model.english import LINKING_WORDS, NEVER_LAST
from model.tokenizer import Words
from model.vocabulary import Vocabulary

BANNED_IDS = (Vocabulary.pad_id, Vocabulary.start_id, Vocabulary.unk_id)  # never part of a caption


class Constraint(Protocol):
    """Rules out some of the words that may come next."""

    def __call__(self, log_probs: Tensor, history: Tensor) -> Tensor:
        """Log-probabilities of the next word, (N, V), with -inf for each word that is ruled out.

        Args:
            log_probs: (N, V), not modified.
            history: (N, T), ids so far, the start token first.
        """


def build_constraints(vocabulary: Vocabulary, language: str, options: DecodingOptions) -> list[Constraint]:
    """The constraints on captions in ``language``, an ISO 639 code; they concern English words alone."""
    if language != "en" or vocabulary.tokens.kind != Words.kind:
        return []
    constraints: list[Constraint] = [NoDanglingEnd(_ids(vocabulary, NEVER_LAST))]
    if not options.allow_repeats:
        constraints.append(NoRepeatedPair(_ids(vocabulary, LINKING_WORDS)))
    return constraints


def allowed_log_probs(logits: Tensor, *, is_first: bool) -> Tensor:
    """Log-probabilities, (N, V), over the tokens a caption may hold; it has at least one word."""
    banned = [*BANNED_IDS, Vocabulary.end_id] if is_first else [*BANNED_IDS]
    logits = logits.float().index_fill(1, torch.tensor(banned, device=logits.device), -torch.inf)
    return logits.log_softmax(dim=1)


class NoRepeatedPair:
    """No pair of words occurs twice, except two linking words: "a dog and a cat", not "a dog and a dog"."""

    def __init__(self, linking: frozenset[int]) -> None:
        """``linking``: ids, pairs of which may be repeated."""
        self._linking = linking

    def __call__(self, log_probs: Tensor, history: Tensor) -> Tensor:
        # The rows and positions where the last word occurred before.
        earlier = (history[:, :-1] == history[:, -1:]).nonzero().tolist()
        ids = history.tolist()
        pairs = [(row, ids[row][position], ids[row][position + 1]) for row, position in earlier]
        banned = [(row, after) for row, word, after in pairs if not self._linking.issuperset((word, after))]
        if not banned:
            return log_probs
        rows, words = (torch.tensor(part, device=log_probs.device) for part in zip(*banned, strict=True))
        return log_probs.index_put((rows, words), log_probs.new_tensor(-torch.inf))


class NoDanglingEnd:
    """No caption ends on a word that another must follow, such as "a"."""

    def __init__(self, dangling: frozenset[int]) -> None:
        """``dangling``: ids that no caption ends on."""
        self._dangling = sorted(dangling)

    def __call__(self, log_probs: Tensor, history: Tensor) -> Tensor:
        dangling = torch.tensor(self._dangling, dtype=history.dtype, device=history.device)
        is_banned = torch.zeros_like(log_probs, dtype=torch.bool)
        is_banned[:, Vocabulary.end_id] = torch.isin(history[:, -1], dangling)
        return log_probs.masked_fill(is_banned, -torch.inf)


def _ids(vocabulary: Vocabulary, words: Collection[str]) -> frozenset[int]:
    """The ids of those words that the vocabulary has."""
    return frozenset(vocabulary.encode(sorted(words))) - {vocabulary.unk_id}
