"""Scores by group of photos, and faults of captions that show without references."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from model import Caption
from model.english import DANGLING_WORDS, LINKING_WORDS
from model.tokenizer import cut_for_scoring
from training.evaluation.metrics import CorpusScores
from training.evaluation.object_words import ANIMALS, CategoryWords

SHOWN = ("cider", "bleu_4")

# The longest caption of each group, in words; each has roughly a third of the captions of Flickr8k.
LENGTHS: Mapping[str, float] = {"up_to_8": 8, "9_to_11": 11, "12_and_more": float("inf")}

# The COCO categories behind the groups of ``group_of``.
KINDS: Mapping[str, frozenset[str]] = {
    "people": frozenset({"person"}),
    "dogs": frozenset({"dog"}),
    "other_animals": frozenset(ANIMALS) - {"dog"},
    "gear": frozenset(
        ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat")  # vehicles
        + ("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove")
        + ("skateboard", "surfboard", "tennis racket")
    ),
}
GROUPS = ("people", "people_with_gear", "dogs", "people_and_dogs", "other_animals", "neither")
MIN_REFERENCES = 2  # that must mention an object before it counts, because one may be mistaken


def by_length(corpus: CorpusScores, captions: Sequence[Caption]) -> dict[str, dict[str, Any]]:
    """Scores by the number of words of the generated caption, see ``LENGTHS``.

    Args:
        corpus: the scores of the captions.
        captions: one per photo, in the order of ``corpus``.

    Returns:
        For every group that is not empty ``photographs``, their number, ``cider`` and ``bleu_4``, x 100, and
        the 95% bootstrap ``intervals`` of both. CIDEr takes its document frequencies from all photos, so the
        mean CIDEr of the groups, weighted by their sizes, is that of the corpus.
    """
    lengths = [len(cut_for_scoring(caption.text).split()) for caption in captions]
    groups = [next(name for name, longest in LENGTHS.items() if length <= longest) for length in lengths]
    return _by_group(corpus, groups, LENGTHS)


def by_category(
    corpus: CorpusScores, references: Sequence[Sequence[Sequence[str]]]
) -> dict[str, dict[str, Any]]:
    """Scores by what the tokenized references of each photo mention, see ``group_of``; as ``by_length``."""
    names = CategoryWords(sorted(frozenset().union(*KINDS.values())))
    return _by_group(corpus, [group_of(texts, names) for texts in references], GROUPS)


def group_of(references: Sequence[Sequence[str]], names: CategoryWords) -> str:
    """Which of ``GROUPS`` a photo is in, by what at least two references (or the only one) mention.

    ``people_with_gear``: people and a vehicle, a ball, a board or the like. ``dogs``: no people.
    ``people_and_dogs``: both, whatever else. ``other_animals``: no dogs, with or without people.

    Args:
        references: tokenized.
        names: of the categories in ``KINDS``.
    """
    named: Counter[str] = Counter()
    for words in references:
        found = {mention.category for mention in names.find(words)}
        named.update(kind for kind, categories in KINDS.items() if categories & found)
    seen = {kind for kind, count in named.items() if count >= min(MIN_REFERENCES, len(references))}
    if "dogs" in seen:
        return "people_and_dogs" if "people" in seen else "dogs"
    if "other_animals" in seen:
        return "other_animals"
    if "people" in seen:
        return "people_with_gear" if "gear" in seen else "people"
    return "neither"


def _by_group(
    corpus: CorpusScores, groups: Sequence[str], order: Collection[str]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name in order:
        if rows := [row for row, group in enumerate(groups) if group == name]:
            scores = corpus.subset(rows).summary()
            found[name] = {
                "photographs": len(rows),
                **{score: scores[score] for score in SHOWN},
                "intervals": {score: scores["intervals"][score] for score in SHOWN},
            }
    return found


def count_faults(captions: Sequence[Caption]) -> dict[str, int]:
    """The number of captions with each of the ``FAULTS``, and of ``unfinished`` ones.

    A caption may have several faults. An unfinished one was cut at the maximum length.
    """
    texts = [cut_for_scoring(caption.text).split() for caption in captions]  # tokens may be parts of words
    counts = {name: sum(map(has_fault, texts)) for name, has_fault in FAULTS.items()}
    return counts | {"unfinished": sum(not caption.is_finished for caption in captions)}


def repeats_bigram(words: Sequence[str]) -> bool:
    """Whether two successive words, not both ``LINKING_WORDS``, occur twice: "a dog and a dog"."""
    pairs = Counter(pairwise(words))
    return any(count > 1 and not LINKING_WORDS.issuperset(pair) for pair, count in pairs.items())


def repeats_around_and(words: Sequence[str]) -> bool:
    """Whether "and" joins a phrase to itself: "two men and two men", "a red and red shirt"."""
    return any(
        list(words[at - length : at]) == list(words[at + 1 : at + 1 + length])
        and not LINKING_WORDS.issuperset(words[at - length : at])
        for at, word in enumerate(words)
        if word == "and"
        for length in range(1, at + 1)
    )


def ends_on_function_word(words: Sequence[str]) -> bool:
    """Whether the last word is one of ``DANGLING_WORDS``: "a man standing on the"."""
    return bool(words) and words[-1] in DANGLING_WORDS


FAULTS: Mapping[str, Callable[[Sequence[str]], bool]] = {
    "repeated_bigram": repeats_bigram,
    "repeated_around_and": repeats_around_and,
    "ends_on_function_word": ends_on_function_word,
}
