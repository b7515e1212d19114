"""The n-grams of captions, as CIDEr compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

ORDERS = 4  # longest n-gram

Tokens = Sequence[int]
Ngram = tuple[int, ...]


def count_ngrams(ids: Tokens) -> Counter[Ngram]:
    """How often each n-gram of all orders occurs in a caption."""
    return Counter(tuple(ids[at : at + n]) for n in range(1, ORDERS + 1) for at in range(len(ids) - n + 1))
