"""How often captions name objects that are not there: CHAIR (Rohrbach et al. 2018, arXiv 1809.02156).

Knows nothing of networks or pictures. An object is a category of an annotation file. It counts as present on
a photograph if it has a box there or any reference caption names it, as in the paper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from training.categories import CategoryWords
from training.metrics import Floats, bootstrap_draws, interval, percent

MEASURES = ("chair_i", "chair_s", "recall")


def present_objects(
    names: CategoryWords, boxed: Collection[str], references: Sequence[Sequence[str]]
) -> frozenset[str]:
    """The categories that a photograph shows.

    Args:
        names: which words name a category.
        boxed: categories with a box.
        references: tokenized captions by people.
    """
    return frozenset(boxed) | {mention.category for words in references for mention in names.find(words)}


def describe_hallucination(
    names: CategoryWords, captions: Sequence[Sequence[str]], present: Sequence[Collection[str]]
) -> dict[str, Any]:
    """CHAIR of one caption a photograph, x 100.

    Args:
        names: which words name a category.
        captions: tokenized, one a photograph.
        present: the categories that each photograph shows, see ``present_objects``.

    Returns:
        ``chair_i``: of the words that name an object, the share whose object is not there; ``chair_s``: the
        share of captions with such a word; ``recall``: of the objects that are there, the share that is
        named. ``words`` and ``absent`` are the counts behind ``chair_i``; ``intervals`` 95 % bootstrap
        intervals [low, high] over photographs; ``by_category`` the counts of every category that is named,
        those most often named in error first. A share of nothing is None.
    """
    words: Counter[str] = Counter()
    absent: Counter[str] = Counter()
    table = []  # a row a photograph: words, absent, captions, captions with absent, present, named
    for caption, there in zip(captions, present, strict=True):
        named = [mention.category for mention in names.find(caption)]
        wrong = [category for category in named if category not in there]
        words.update(named)
        absent.update(wrong)
        table.append((len(named), len(wrong), 1, bool(wrong), len(set(there)), len(set(named) & set(there))))
    counts = np.array(table, dtype=np.float64).reshape(len(table), 6)
    shares = _shares(counts.sum(axis=0))
    resampled = np.array([_shares(counts[draw].sum(axis=0)) for draw in bootstrap_draws(len(counts))])
    order = sorted(words, key=lambda category: (-absent[category], -words[category], category))
    return {
        "photographs": len(table),
        "words": words.total(),
        "absent": absent.total(),
        **{
            name: None if np.isnan(share) else percent(share)
            for name, share in zip(MEASURES, shares, strict=True)
        },
        "intervals": {
            name: None if np.isnan(share) else interval(values[~np.isnan(values)])
            for name, share, values in zip(MEASURES, shares, resampled.T, strict=True)
        },
        "by_category": {
            category: {"words": words[category], "absent": absent[category]} for category in order
        },
    }


def _shares(sums: Floats) -> Floats:
    """The three measures, 0 to 1, of summed counts; NaN for a share of nothing."""
    words, absent, captions, with_absent, present, named = sums
    parts, wholes = np.array([absent, with_absent, named]), np.array([words, captions, present])
    return np.divide(parts, wholes, out=np.full(3, np.nan), where=wholes > 0)
