"""What one figure hides: scores by group of photos, and faults that a caption shows by itself.

Knows nothing of networks or pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from model import Caption
from model.english import DANGLING_WORDS, LINKING_WORDS
from model.tokenizer import cut_for_scoring
from training.evaluation.metrics import Tally
from training.evaluation.object_words import ANIMALS, CategoryWords

SHOWN = ("cider", "bleu_4")

# Words of a generated caption, up to and including; a third of Flickr8k's each, roughly.
LENGTHS: Mapping[str, float] = {"up_to_8": 8, "9_to_11": 11, "12_and_more": float("inf")}

# The COCO categories that make the groups of ``group_of``.
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
WITNESSES = 2  # references that have to name a thing before it counts: one may be mistaken, or digress


def by_length(tally: Tally, captions: Sequence[Caption]) -> dict[str, dict[str, Any]]:
    """Scores by the number of words of the generated caption, see ``LENGTHS``.

    Args:
        tally: of the captions.
        captions: one a photo, in the order of ``tally``.

    Returns:
        for every group that has any, ``photos``, their number, ``cider`` and ``bleu_4``, x 100, and
        the 95 % bootstrap ``intervals`` of both. CIDEr takes its document frequencies from all photos,
        so the groups' CIDEr, weighted by their sizes, are that of the whole.
    """
    groups = [
        next(
            name for name, longest in LENGTHS.items() if len(cut_for_scoring(caption.text).split()) <= longest
        )
        for caption in captions
    ]
    return _by_group(tally, groups, LENGTHS)


def by_category(tally: Tally, references: Sequence[Sequence[Sequence[str]]]) -> dict[str, dict[str, Any]]:
    """Scores by what people say is on the photo, see ``group_of``.

    Args:
        tally: of captions of these photos.
        references: for each photo what people wrote, tokenized, in the order of ``tally``.

    Returns:
        as ``by_length``.
    """
    names = CategoryWords(sorted(frozenset().union(*KINDS.values())))
    return _by_group(tally, [group_of(texts, names) for texts in references], GROUPS)


def group_of(references: Sequence[Sequence[str]], names: CategoryWords) -> str:
    """Which of ``GROUPS`` a photo is in, by what at least two of its references name (or its only one).

    ``people_with_gear`` has people and a vehicle, a ball, a board or the like; ``dogs`` no people,
    ``people_and_dogs`` both, whatever else there is; ``other_animals`` no dogs, with people or without.

    Args:
        references: tokenized.
        names: of the categories in ``KINDS``.
    """
    named: Counter[str] = Counter()
    for words in references:
        found = {mention.category for mention in names.find(words)}
        named.update(kind for kind, categories in KINDS.items() if categories & found)
    seen = {kind for kind, count in named.items() if count >= min(WITNESSES, len(references))}
    if "dogs" in seen:
        return "people_and_dogs" if "people" in seen else "dogs"
    if "other_animals" in seen:
        return "other_animals"
    if "people" in seen:
        return "people_with_gear" if "gear" in seen else "people"
    return "neither"


def _by_group(tally: Tally, groups: Sequence[str], order: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = {name: [row for row, group in enumerate(groups) if group == name] for name in order}
    return {name: _group(tally.part(chosen), len(chosen)) for name, chosen in rows.items() if chosen}


def _group(tally: Tally, photos: int) -> dict[str, Any]:
    scores = tally.scores()
    return {
        "photographs": photos,
        **{name: scores[name] for name in SHOWN},
        "intervals": {name: scores["intervals"][name] for name in SHOWN},
    }


def count_faults(captions: Sequence[Caption]) -> dict[str, int]:
    """In how many captions each fault is, by name; a caption may have several.

    Returns:
        the names of ``FAULTS`` and their numbers, and ``unfinished``: cut at the longest allowed length.
    """
    said = [cut_for_scoring(caption.text).split() for caption in captions]  # its tokens may be parts of words
    found = {name: sum(map(has_fault, said)) for name, has_fault in FAULTS.items()}
    return found | {"unfinished": sum(not caption.is_finished for caption in captions)}


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
    """Whether the last word is one on which hardly any sentence ends: "a man standing on the"."""
    return bool(words) and words[-1] in DANGLING_WORDS


FAULTS: Mapping[str, Callable[[Sequence[str]], bool]] = {
    "repeated_bigram": repeats_bigram,
    "repeated_around_and": repeats_around_and,
    "ends_on_function_word": ends_on_function_word,
}
