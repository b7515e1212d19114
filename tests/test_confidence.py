"""Confidence: its features, its place in captions, and its checkpoints."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, draw_photo, random_network

from model import Captioner, CheckpointError, DecodingOptions
from model.checkpoint import save_checkpoint
from model.confidence import FEATURES, ConfidenceModel, ConfidenceScorer
from model.evidence import Evidence, WordDetector
from model.phrases import PhraseHead

DOG, PUP, BUS, STOP, RED, CUP = range(4, 10)
NAMES = {(DOG,): 1, (PUP,): 1, (BUS,): 2, (BUS, STOP): 0, (CUP,): 3}


@pytest.fixture
def confident(config, vocabulary) -> Captioner:
    """A captioner with every part that confidence uses; confidences differ from caption to caption."""
    config = replace(config, phrases=3, phrase_dim=4, evidence=3, evidence_dim=4)
    config = replace(config, confidence=len(FEATURES), object_names=2)
    network = random_network(config)
    network.phrases.ids[:, 0] = torch.tensor([4, 5, 6])
    network.phrases.idf.copy_(torch.tensor([0.1, 1.0, 2.0]))
    network.evidence.ids.copy_(torch.tensor([4, 6, 9]))
    network.confidence.fill({(5,): 1, (6,): 2})
    network.confidence.output.weight.data.fill_(0.1)
    return Captioner(network, config, vocabulary, TINY)


def features(*captions: list[int], shares: dict[int, float], evidence: dict[int, float]) -> list[list[float]]:
    """Of captions of one image, with the shares and the evidence of single words; an idf of 2 of each."""
    model = ConfidenceModel(len(FEATURES), len(NAMES))
    model.fill(NAMES)
    head = detector = support = None
    if shares:
        head = PhraseHead(1, len(shares), 1)
        head.ids[:, 0], head.idf[:] = torch.tensor([*shares], dtype=torch.int32), 2.0
    if evidence:
        detector = WordDetector(1, len(evidence), 1)
        detector.ids[:] = torch.tensor([*evidence], dtype=torch.int32)
        words = torch.zeros(1, 12).index_copy(1, detector.ids.long(), torch.tensor([[*evidence.values()]]))
        support = Evidence(words, torch.zeros(1, 1))
    [found] = ConfidenceScorer(model, head, detector).features(
        [[(ids, -3.0) for ids in captions]], torch.tensor([[*shares.values()]]) if head else None, support
    )
    return found.tolist()


def test_least_likely_object_counts_by_all_its_names():
    [found] = features([RED, DOG, BUS], shares={DOG: 0.5, PUP: 0.5, BUS: 0.9}, evidence={})
    assert found == pytest.approx([math.log(0.75 / 0.25), 1.0, 0.7, -3.0])


def test_longer_phrase_hides_the_object_in_it():
    stop, bus, nothing = features([BUS, STOP], [BUS], [RED], shares={BUS: 0.2}, evidence={})
    assert stop[:2] == nothing[:2] == [0.0, 0.0]
    assert bus[:2] == pytest.approx([math.log(0.25), 1.0])


@pytest.mark.parametrize(
    ("shares", "evidence", "expected"),
    [
        ({DOG: 0.2}, {DOG: 2.0}, (math.log(0.25) + 2) / 2),
        ({DOG: 0.2}, {}, math.log(0.25)),
        ({}, {DOG: 2.0}, 2.0),
        ({DOG: 0.2}, {BUS: -2.0}, math.log(0.25)),
        ({BUS: 0.2}, {BUS: 2.0}, 0.0),
        ({}, {}, 0.0),
    ],
)
def test_heads_that_know_an_object_are_averaged(shares, evidence, expected):
    [found] = features([DOG], shares=shares, evidence=evidence)
    assert found[0] == pytest.approx(expected)
    assert found[1] == float(expected != 0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_extreme_shares_give_finite_features(share):
    [found] = features([DOG], shares={DOG: share, PUP: share}, evidence={})
    assert abs(found[0]) == pytest.approx(math.log(999), abs=0.01)


def test_confidence_does_not_depend_on_other_captions_or_images(confident):
    images = [draw_photo(seed) for seed in range(3)]
    alone = [confident.caption([image])[0][0].confidence for image in images]
    several = confident.caption(images, DecodingOptions(num_captions=3))
    assert [found[0].confidence for found in several] == pytest.approx(alone, abs=1e-5)
    of_all = [caption.confidence for found in several for caption in found]
    assert all(0 < confidence < 1 for confidence in of_all)
    assert len({round(confidence, 4) for confidence in of_all}) > 3


def test_confidence_survives_a_checkpoint(confident, tmp_path):
    save_checkpoint(tmp_path, confident.network, confident.config, confident.vocabulary, TINY)
    before, after = (
        captioner.caption([draw_photo(0)])[0][0] for captioner in (confident, Captioner.load(tmp_path))
    )
    assert after.text == before.text
    assert after.confidence == pytest.approx(before.confidence, abs=0.01)
    assert after.as_record(attention=False)["confidence"] == round(after.confidence, 3)


def test_captioner_without_confidence_says_null(captioner):
    [[caption]] = captioner.caption([draw_photo(0)])
    assert caption.as_record(attention=False)["confidence"] is None


def test_given_captions_have_no_confidence(confident):
    [[caption]] = confident.force_decode([draw_photo(0)], [[["a", "dog"]]])
    assert caption.confidence is None


def test_other_features_are_refused(config, vocabulary, tmp_path: Path):
    config = replace(config, confidence=len(FEATURES) + 1)
    save_checkpoint(tmp_path, random_network(config), config, vocabulary, TINY)
    with pytest.raises(CheckpointError, match="5 features, this program has 4"):
        Captioner.load(tmp_path)
