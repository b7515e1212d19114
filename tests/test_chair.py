"""CHAIR: how often captions name objects that are not there."""

from __future__ import annotations

import random

import pytest

from training.categories import CategoryWords
from training.chair import describe_hallucination, present_objects

CATEGORIES = (
    "person",
    "dog",
    "cup",
    "dining table",
    "bus",
    "hot dog",
    "toilet",
    "chair",
    "tie",
    "train",
    "elephant",
)
PUBLISHED = """person, man, child, passenger
dog, puppy
cup
dining table, table, desk
bus
hot dog
toilet
chair, seat
tie, bow tie
train
elephant
"""


@pytest.fixture
def names() -> CategoryWords:
    return CategoryWords(CATEGORIES)


def measure(names, *pairs):
    captions, present = zip(*((caption.split(), there) for caption, there in pairs), strict=True)
    return describe_hallucination(names, captions, present)


def test_counts_absent_objects_by_word_and_by_caption(names):
    found = measure(
        names,
        ("a man and a dog on a bus", {"bus"}),  # two of three are not there
        ("a cup on a table", {"cup", "dining table", "person"}),
        ("a field", {"dog"}),
    )
    assert (found["photographs"], found["words"], found["absent"]) == (3, 5, 2)
    assert found["chair_i"] == 40.0
    assert found["chair_s"] == pytest.approx(100 / 3, abs=0.01)
    assert found["recall"] == pytest.approx(100 * 3 / 5, abs=0.01)
    assert found["by_category"]["dog"] == {"words": 1, "absent": 1}
    assert list(found["by_category"])[:2] == ["dog", "person"]


def test_silence_names_nothing_wrong_and_recalls_nothing(names):
    found = measure(names, ("a field", {"dog"}), ("a road", {"bus"}))
    assert (found["chair_i"], found["chair_s"], found["recall"]) == (None, 0.0, 0.0)
    assert found["intervals"]["chair_i"] is None


def test_object_is_present_by_box_or_by_reference(names):
    references = [["a", "puppy", "on", "a", "couch"], ["two", "men"]]
    assert present_objects(names, {"cup"}, references) == {"cup", "dog", "person"}


def test_interval_contains_the_share_and_shrinks_with_photographs(names):
    rng = random.Random(0)
    pairs = [("a dog and a cup", {"dog"} if rng.random() < 0.5 else {"dog", "cup"}) for _ in range(400)]
    few, many = measure(names, *pairs[:40]), measure(names, *pairs)
    for found in (few, many):
        low, high = found["intervals"]["chair_i"]
        assert low <= found["chair_i"] <= high
    widths = [found["intervals"]["chair_s"][1] - found["intervals"]["chair_s"][0] for found in (few, many)]
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(
    ("caption", "categories"),
    [
        ("two puppies at a desk", ["dog", "dining table"]),
        ("a hot dog", ["hot dog"]),
        ("a toilet seat beside a seat", ["toilet", "chair"]),
        ("a baby elephant and a baby", ["elephant"]),
        ("a passenger train beside passengers", ["train", "person"]),
        ("a train track", []),
        ("home plate", []),
        ("a man in a bow tie", ["person", "tie"]),
        ("a field", []),
    ],
)
def test_published_synonyms_follow_the_published_rules(caption, categories):
    words = CategoryWords.from_synonyms(PUBLISHED, CATEGORIES)
    assert [mention.category for mention in words.find(caption.split())] == categories


def test_synonyms_must_have_every_category():
    with pytest.raises(ValueError, match="bus"):
        CategoryWords.from_synonyms("dog, puppy\n", ("dog", "bus"))
