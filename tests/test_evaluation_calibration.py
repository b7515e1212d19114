"""Which captions are right, and how confidence is compared with that."""

from pathlib import Path

import numpy as np
import pytest

from training.data.caption_files import CaptionedPhoto
from training.data.instances import AnnotatedPhoto, Instances
from training.evaluation.calibration import auroc, calibration_error, describe_confidence
from training.evaluation.correctness import Correctness, ObjectNames
from training.reporting.reliability import write_reliability

PHOTO = CaptionedPhoto(
    path=Path("photos/a.jpg"),
    captions=(("a", "man", "rides", "a", "bike"), ("two", "people", "on", "a", "road")),
    split="val",
)
BOXED = AnnotatedPhoto(path=Path("a.jpg"), captions=(), split="test", boxes={"dog": [(0, 0, 1, 1)]})
BOXES = Instances(categories=("person", "dog", "bicycle", "cup"), photos=(BOXED,))


def correctness(right: list[bool], objects: list[int], absent: list[int]) -> Correctness:
    return Correctness(np.array(right), np.array(objects, float), np.array(absent, float))


@pytest.mark.parametrize(
    ("caption", "instances", "expected"),
    [
        ("a man rides a bike", None, (True, 2, 0)),
        ("a woman rides a bicycle", None, (False, 2, 0)),  # present, but of the words only one is used
        ("a woman rides on a road", None, (True, 1, 0)),
        ("a man rides with a dog", None, (False, 2, 1)),
        ("a man rides with a dog", BOXES, (True, 2, 0)),
        ("a man rides a bike with a cup", BOXES, (False, 3, 1)),
        ("a blue sky", None, (False, 0, 0)),
        ("a of the", None, (False, 0, 0)),
        ("a man rides a bike near a pizza", BOXES, (True, 2, 0)),  # not a category of the file
    ],
)
def test_right_captions_name_what_is_there_in_peoples_words(caption, instances, expected):
    found = Correctness.of([caption], [PHOTO], ObjectNames("en", instances))
    assert (bool(found.is_right[0]), found.objects[0], found.absent[0]) == expected


def test_english_names_are_not_looked_for_in_other_languages():
    photo = CaptionedPhoto(path=Path("a.jpg"), captions=(("un", "bus"),), split="val")
    found = Correctness.of(["un bus et un car"], [photo], ObjectNames("fr", None))
    assert (found.objects[0], found.absent[0]) == (0, 0)


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(5, size=40) / 4, rng.random(40) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_auroc_without_pairs_is_none(positive):
    assert auroc(np.array([0.1, 0.9]), np.array(positive)) is None


def test_calibration_error_is_zero_on_the_diagonal_only():
    right = np.array([True, False, True, True])
    assert calibration_error(np.array([0.5, 0.5, 1.0, 1.0]), right) == 0
    assert calibration_error(np.array([0.25, 0.25, 0.5, 0.5]), right) == pytest.approx(0.375)


def test_surest_captions_have_least_risk(tmp_path):
    confidence = np.linspace(0, 1, 10)
    captions = correctness([False] * 5 + [True] * 5, [2] * 10, [1] * 5 + [0] * 5)
    found = describe_confidence(confidence, captions)
    assert (found["auroc_right"], found["auroc_absent"]) == (1.0, 1.0)
    assert found["risk_coverage"]["100"] == {"chair_i": 25.0, "wrong": 50.0}
    assert found["risk_coverage"]["70"] == {"chair_i": 14.29, "wrong": 28.57}
    assert found["risk_coverage"]["50"] == {"chair_i": 0.0, "wrong": 0.0}
    write_reliability(tmp_path / "reliability.png", confidence, captions)
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_captions_without_objects_have_no_chair():
    found = describe_confidence(np.array([0.5]), correctness([True], [0], [0]))
    assert found["risk_coverage"]["50"] == {"chair_i": None, "wrong": 0.0}
    assert (found["right"], found["mean"], found["ece"], found["auroc_right"]) == (1.0, 0.5, 0.5, None)
