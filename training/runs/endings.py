"""Learning from training captions which phrases a caption may end on, see ``model.endings``."""

from collections import Counter
from collections.abc import Sequence

from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary

# Probability of the end below which a phrase dangles. Of people's captions 1.5 % end on such a phrase.
MIN_END = 0.012
MIN_LENGTH = 4  # words of a caption before it may end: its subject ("a man") says little about ends
PRIOR_COUNT = 4.0  # how many occurrences the estimate from the shorter phrase is worth


def learn_endings(captions: Sequence[Sequence[int]]) -> dict[Ngram, bool]:
    """The phrases that decide whether a caption may end, each with whether it dangles.

    How often a phrase of up to ``MAX_NGRAM`` words ends a caption is smoothed by how often its last words
    without the first do. Only phrases that differ from what shorter ones say are returned.

    Args:
        captions: of the training images, as ids without end tokens.
    """
    table: dict[Ngram, bool] = {}
    shorter: dict[Ngram, float] = {}  # probability of the end after each phrase that is a word shorter
    for length in range(1, MAX_NGRAM + 1):
        occurred: Counter[Ngram] = Counter()
        ended: Counter[Ngram] = Counter()
        for ids in captions:
            phrases = [tuple(ids[end - length : end]) for end in range(MIN_LENGTH, len(ids) + 1)]
            occurred.update(phrases)
            ended.update(phrases[-1:])
        if length == 1:
            shorter[()] = max(MIN_END, ended.total() / max(1, occurred.total()))
        ends: dict[Ngram, float] = {}
        for phrase, count in occurred.items():
            before = shorter[phrase[1:]]
            ends[phrase] = (ended[phrase] + PRIOR_COUNT * before) / (count + PRIOR_COUNT)
            dangles = ends[phrase] < MIN_END
            if dangles != (before < MIN_END) and Vocabulary.unk_id not in phrase:
                table[phrase] = dangles
        shorter = ends
    return table
