"""Learn from training captions on which phrases a caption may not end.

Counted are the phrases of one to four words at every place of every caption, but the first words, which
seldom end one: how often each was met, and how often the caption ended there. The probability of an end is
smoothed by that after the phrase without its first word. What is kept is only whether it is too small, and
only where that differs from what the shorter phrases say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from model.endings import LONGEST, EndingTable

LEAST_END = (
    0.012  # probability of an end below which none is allowed; people's captions end so in 1.5 % of cases
)
FIRST_PLACE = 3  # of the words counted, from 0: a subject ("a man") says little of how captions end
PRIOR_COUNT = 4.0  # how often the shorter phrase's probability counts as having been met

Phrase = tuple[int, ...]


def learn_endings(captions: Iterable[Sequence[int]], least_end: float = LEAST_END) -> EndingTable:
    """The table of phrases that decide whether a caption may end.

    Args:
        captions: of the training photographs, in ids, without end tokens.
        least_end: probability of an end below which a phrase dangles, 0 to 1.
    """
    met: Counter[Phrase] = Counter()
    ended: Counter[Phrase] = Counter()
    for ids in captions:
        for end in range(FIRST_PLACE + 1, len(ids) + 1):
            phrases = [tuple(ids[end - length : end]) for length in range(1, LONGEST + 1)]
            met.update(phrases)
            if end == len(ids):
                ended.update(phrases)
    places = sum(count for phrase, count in met.items() if len(phrase) == 1)
    ends = sum(count for phrase, count in ended.items() if len(phrase) == 1)
    probability: dict[Phrase, float] = {(): ends / max(1, places)}
    table: dict[Phrase, bool] = {}
    for phrase in sorted(met, key=len):  # the shorter ones first
        prior = probability[phrase[1:]]
        probability[phrase] = (ended[phrase] + PRIOR_COUNT * prior) / (met[phrase] + PRIOR_COUNT)
        dangles = probability[phrase] < least_end
        if dangles != _decided(table, phrase[1:]):
            table[phrase] = dangles
    return _as_table(table)


def _decided(table: dict[Phrase, bool], phrase: Phrase) -> bool:
    """What the longest known end of a phrase says."""
    ends = (phrase[start:] for start in range(len(phrase)))
    return next((table[end] for end in ends if end in table), False)


def _as_table(phrases: dict[Phrase, bool]) -> EndingTable:
    table = EndingTable(len(phrases))
    for row, (phrase, dangles) in enumerate(phrases.items()):
        table.phrases[row, : len(phrase)] = torch.tensor(phrase)
        table.dangling[row] = dangles
    return table
