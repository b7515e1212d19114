"""Word evidence: what an image says of each word, and how the decoder takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_photo, loud_network

from model import Captioner, CheckpointInfo, DecodingOptions
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.evidence import LARGEST, Evidence, EvidenceGate, WordDetector
from model.vocabulary import tokenize
from training.captions import CaptionedPhotograph, DataError
from training.evidence import EvidenceRecipe, learn_evidence

INFO = CheckpointInfo(name="t", licence="-", trained_on="-")


@pytest.fixture
def detecting(config, vocabulary) -> Captioner:
    """A captioner with evidence of three words, strong and different from image to image."""
    network = loud_network(replace(config, evidence=3, evidence_dim=4))
    network.evidence.ids.copy_(torch.tensor([4, 6, 9]))
    with torch.no_grad():
        network.evidence.output.weight.mul_(20)
    config = replace(config, evidence=3, evidence_dim=4)
    return Captioner(network, config, vocabulary, INFO)


def test_evidence_is_clipped_and_only_of_the_detectors_words():
    torch.manual_seed(0)
    detector = WordDetector(feature_dim=5, words=3, width=4)
    detector.ids.copy_(torch.tensor([7, 4, 5]))
    with torch.no_grad():
        detector.base.copy_(torch.tensor([-9.0, 9.0, 0.0]))
    features = torch.randn(2, 6, 5)
    evidence = detector.evidence(features, 9)
    assert evidence.shape == (2, 9)
    assert evidence[:, [7, 4]].tolist() == [[LARGEST, -LARGEST]] * 2
    assert torch.equal(evidence[:, 5], detector(features)[:, 2].clamp(-LARGEST, LARGEST))
    assert not evidence[:, [0, 1, 2, 3, 6, 8]].any()


def test_pooling_lies_between_the_mean_and_the_maximum_of_the_cells():
    torch.manual_seed(1)
    detector = WordDetector(feature_dim=5, words=3, width=4)
    with torch.no_grad():
        detector.output.weight.zero_()
        detector.output.bias.zero_()
        detector.cell_output.weight.mul_(9)
    features = torch.randn(2, 6, 5)
    cells = detector.cells(features)
    for sharpness, pooled in ((-9.0, cells.mean(dim=1)), (9.0, cells.amax(dim=1))):
        with torch.no_grad():
            detector.sharpness.fill_(sharpness)
        assert torch.allclose(detector(features), pooled, atol=1e-2)


def test_gate_lies_between_0_and_2_and_depends_on_state_and_image():
    torch.manual_seed(2)
    gate = EvidenceGate(7, 6)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(1, 7).expand(4, -1)
    images = gate.image(torch.randn(4, 6))
    found = gate(hidden, Evidence(torch.zeros(4, 9), images))
    assert found.shape == (4, 1)
    assert 0 < found.min() < found.max() < 2
    assert not torch.equal(found, gate(hidden + 1, Evidence(torch.zeros(4, 9), images)))


def test_evidence_shifts_the_logits_of_a_step_by_the_gate(detecting):
    network = detecting.network
    with torch.no_grad():
        memory = network.remember(torch.randn(3, 3, 40, 40))
        state = network.decoder.initial_state(memory)
        words = torch.tensor([1, 1, 1])
        step = network.decoder.step(words, state, memory)
        without = network.decoder.step(words, state, memory._replace(evidence=None))
        gate = network.decoder.evidence_gate(step.state.hidden, memory.evidence)
    assert torch.allclose(step.logits - without.logits, gate * memory.evidence.words, atol=1e-4)
    assert memory.evidence.words.abs().amax() > 0.1


def test_training_and_search_see_the_same_evidence(detecting):
    photos = [draw_photo(seed) for seed in range(4)]
    found = detecting.caption(photos, DecodingOptions(max_length=6))
    texts = [[tokenize(best.text)] for [best] in found]
    read = detecting.read(photos, texts)
    detecting.network.evidence = None
    blind = detecting.read(photos, texts)
    for [best], [one], [other] in zip(found, read, blind, strict=True):
        assert sum(word.log_prob for word in one.words) <= sum(word.log_prob for word in best.words) + 1e-4
        assert one.log_prob != pytest.approx(other.log_prob, abs=1e-4)


def test_batch_gets_the_same_captions_as_one_at_a_time(detecting):
    photos = [draw_photo(seed) for seed in range(5)]
    together = [best.text for [best] in detecting.caption(photos)]
    assert together == [detecting.caption([photo])[0][0].text for photo in photos]


def test_captions_teach_the_gate_but_not_the_detector(detecting):
    network = detecting.network
    memory = network.remember(torch.randn(2, 3, 40, 40))
    step = network.decoder.step(torch.tensor([1, 1]), network.decoder.initial_state(memory), memory)
    step.logits.log_softmax(dim=1)[:, 4].sum().backward()
    assert all(parameter.grad is not None for parameter in network.decoder.evidence_gate.parameters())
    assert all(parameter.grad is None for parameter in network.evidence.parameters())


def test_checkpoint_keeps_the_evidence_and_old_ones_have_none(detecting, checkpoint, tmp_path):
    folder = tmp_path / "with"
    save_checkpoint(folder, detecting.network, detecting.config, detecting.vocabulary, detecting.info)
    assert torch.equal(load_checkpoint(folder).network.evidence.ids, detecting.network.evidence.ids)
    assert load_checkpoint(checkpoint).network.evidence is None


def test_detector_learns_which_words_go_with_which_features(config, vocabulary, network):
    rng = np.random.default_rng(0)
    words = vocabulary.words[:2]
    kinds = rng.integers(2, size=60)
    photographs = [
        CaptionedPhotograph(path=Path(f"{n}.jpg"), captions=((words[kind],),), split="train")
        for n, kind in enumerate(kinds)
    ]
    features = rng.normal(size=(60, 2, 25, 64)).astype(np.float16)
    features[kinds == 1, :, :8, 3] += 6  # in a part of the image
    start = Checkpoint(config=config, vocabulary=vocabulary, network=network, info=INFO)
    recipe = EvidenceRecipe(min_count=10, width=16, epochs=250)
    found = learn_evidence(start, photographs, features, [1.0] * 60, recipe)
    evidence = found.network.evidence.evidence(torch.from_numpy(features[:, 0]).float(), len(vocabulary))
    first, second = (
        evidence[:, vocabulary.encode([words[0]])[0]],
        evidence[:, vocabulary.encode([words[1]])[0]],
    )
    right = (second > first) == torch.from_numpy(kinds == 1)
    assert right.float().mean() > 0.95
    with pytest.raises(DataError, match="smaller"):
        learn_evidence(start, photographs, features, [1.0] * 60, recipe._replace(min_count=61))
