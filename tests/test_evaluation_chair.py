"""CHAIR: its counts, what counts as present, and its intervals."""

import random
from pathlib import Path

import pytest

from training.data.caption_files import CaptionedPhoto
from training.data.instances import AnnotatedPhoto, Instances
from training.errors import DataError
from training.evaluation.chair import ChairScorer

CATEGORIES = ("person", "dog", "cup", "dining table", "bus")


def scorer(*present: tuple[str, ...], references: tuple[str, ...] = ()) -> ChairScorer:
    """Of photos with a box of every category ``present``, each with the same references."""
    boxed = [
        AnnotatedPhoto(
            path=Path(f"{number}.jpg"),
            captions=(),
            split="test",
            boxes={name: [(0, 0, 1, 1)] for name in names},
        )
        for number, names in enumerate(present)
    ]
    words = tuple(tuple(text.split()) for text in references)
    photos = [CaptionedPhoto(path=Path("elsewhere") / one.path, captions=words, split="val") for one in boxed]
    return ChairScorer(photos, Instances(categories=CATEGORIES, photos=tuple(boxed)))


def test_absent_objects_are_counted_by_word_and_caption():
    chair = scorer(("bus",), ("cup", "dining table", "person"), ("dog",))
    found = chair.score(["a man and a dog on a bus", "a cup on a table", "a field"])
    assert (found["photographs"], found["words"], found["absent"]) == (3, 5, 2)
    assert (found["chair_i"], found["chair_s"], found["recall"]) == (40.0, 33.33, 60.0)
    assert found["by_category"]["dog"] == {"words": 1, "absent": 1, "present": 1, "named": 0}
    assert list(found["by_category"])[:2] == ["dog", "person"]


def test_repeated_word_counts_twice_and_recalls_once():
    found = scorer(("dog",)).score(["a dog and a puppy by a bus and a bus"])
    assert (found["chair_i"], found["chair_s"], found["recall"]) == (50.0, 100.0, 100.0)


def test_caption_without_objects_recalls_nothing():
    found = scorer(("dog",), ("bus",)).score(["a field", "a road"])
    assert (found["chair_i"], found["chair_s"], found["recall"]) == (None, 0.0, 0.0)
    assert found["intervals"]["chair_i"] is None


def test_object_is_present_by_box_or_by_reference():
    found = scorer(("cup",), references=("a puppy", "two men")).score(["a man with a dog , a cup and a bus"])
    assert (found["words"], found["absent"], found["recall"]) == (4, 1, 100.0)


def test_photos_without_boxes_are_left_out():
    boxed = AnnotatedPhoto(path=Path("b.jpg"), captions=(), split="test", boxes={"dog": [(0, 0, 1, 1)]})
    photos = [CaptionedPhoto(path=Path(f"{name}.jpg"), captions=(), split="val") for name in "abc"]
    known = Instances(categories=CATEGORIES, photos=(boxed,))
    assert ChairScorer(photos, known).score(["a bus", "a dog", "a bus"])["chair_i"] == 0
    with pytest.raises(DataError, match="no boxes"):
        ChairScorer(photos[::2], known)


def test_interval_contains_share_and_shrinks_with_photos():
    rng = random.Random(0)
    present = [("dog",) if rng.random() < 0.5 else ("dog", "cup") for _ in range(400)]
    widths = []
    for count in (40, 400):
        found = scorer(*present[:count]).score(["a dog and a cup"] * count)
        for measure in ("chair_i", "chair_s"):
            low, high = found["intervals"][measure]
            assert low < found[measure] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
