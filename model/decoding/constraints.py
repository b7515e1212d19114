"""Constraints of decoding: which words may come next.

``build_constraints`` is the one place that knows them all: add a constraint here, and beam search applies it.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.options import DecodingOptions
from model.endings import Endings
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


def build_constraints(
    vocabulary: Vocabulary, language: str, options: DecodingOptions, endings: Endings | None = None
) -> list[Constraint]:
    """The constraints on captions made of words; characters and pieces have none.

    Args:
        vocabulary: of the captions.
        language: an ISO 639 code; the lists of words concern English alone.
        options: ``max_length`` must be set.
        endings: learnt, in any language; None: the list ``NEVER_LAST``.
    """
    if vocabulary.tokens.kind != Words.kind:
        return []
    if endings is None and language == "en":
        endings = Endings({(index,): True for index in _ids(vocabulary, NEVER_LAST)})
    constraints: list[Constraint] = []
    if endings is not None:
        assert options.max_length is not None  # set by Captioner.resolve
        constraints.append(NoDanglingEnd(endings, options.max_length))
    if language == "en" and not options.allow_repeats:
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
        # The rows and places where the last word occurred before.
        earlier = (history[:, :-1] == history[:, -1:]).nonzero().tolist()
        ids = history.tolist()
        pairs = [(row, ids[row][place], ids[row][place + 1]) for row, place in earlier]
        return _without(
            log_probs,
            [(row, after) for row, word, after in pairs if not self._linking.issuperset((word, after))],
        )


class NoDanglingEnd:
    """No caption ends on a word that another must follow, such as "a", nor is cut off after one."""

    def __init__(self, endings: Endings, max_length: int) -> None:
        """``max_length``: words of the longest caption."""
        self._endings = endings
        self._max_length = max_length

    def __call__(self, log_probs: Tensor, history: Tensor) -> Tensor:
        captions = history[:, 1:].tolist()
        is_last = history.shape[1] == self._max_length  # the start token is one of them
        banned = [
            (row, word)
            for row, ids in enumerate(captions)
            for word in (
                *[Vocabulary.end_id] * self._endings.dangles(ids),
                *(self._endings.dangling_after(ids) if is_last else ()),
            )
        ]
        allowed = _without(log_probs, banned)
        # Where nothing else could follow, a dangling caption is better than none.
        return torch.where(allowed.isneginf().all(dim=1, keepdim=True), log_probs, allowed)


def _ids(vocabulary: Vocabulary, words: Collection[str]) -> frozenset[int]:
    """The ids of those words that the vocabulary has."""
    return frozenset(vocabulary.encode(sorted(words))) - {vocabulary.unk_id}


def _without(log_probs: Tensor, banned: Sequence[tuple[int, int]]) -> Tensor:
    """Log-probabilities with -inf for each banned word of a row."""
    if not banned:
        return log_probs
    rows, words = (torch.tensor(part, device=log_probs.device) for part in zip(*banned, strict=True))
    return log_probs.index_put((rows, words), log_probs.new_tensor(-torch.inf))
