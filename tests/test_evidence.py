"""Word evidence: the detector, the gate, and their part in decoding."""

from dataclasses import replace

import pytest
import torch
from conftest import draw_photo, random_network

from model import Captioner, CheckpointInfo, DecodingOptions
from model.checkpoint import load_checkpoint, save_checkpoint
from model.evidence import MAX_EVIDENCE, Evidence, EvidenceGate, WordDetector
from model.tokenizer import tokenize

PHOTOS = [draw_photo(seed) for seed in range(5)]


@pytest.fixture
def detecting(config, vocabulary) -> Captioner:
    """A captioner with strong evidence of three words, different from photo to photo."""
    config = replace(config, evidence=3, evidence_dim=4)
    network = random_network(config)
    network.evidence.ids.copy_(torch.tensor([4, 6, 9]))
    with torch.no_grad():
        network.evidence.output.weight.mul_(4)
        network.decoder.evidence_gate.state.weight.normal_()
    return Captioner(network, config, vocabulary, CheckpointInfo(name="t", licence="-", trained_on="-"))


def test_evidence_is_clipped_and_zero_for_other_words():
    torch.manual_seed(0)
    detector = WordDetector(feature_dim=5, words=3, width=4)
    detector.ids.copy_(torch.tensor([7, 4, 5]))
    detector.base.copy_(torch.tensor([-9.0, 9.0, 0.0]))
    features = torch.randn(2, 6, 5)
    evidence = detector.evidence(features, 9)
    assert evidence[:, [7, 4]].tolist() == [[MAX_EVIDENCE, -MAX_EVIDENCE]] * 2
    assert torch.equal(evidence[:, 5], detector(features)[:, 2].clamp(-MAX_EVIDENCE, MAX_EVIDENCE))
    assert not evidence[:, [0, 1, 2, 3, 6, 8]].any()


@pytest.mark.parametrize("sharpness", [-9.0, 9.0])
def test_pooling_is_from_mean_to_maximum(sharpness):
    torch.manual_seed(1)
    detector = WordDetector(feature_dim=5, words=3, width=4)
    with torch.no_grad():
        detector.cell_output.weight.mul_(9)
        detector.sharpness.fill_(sharpness)
    features = torch.randn(2, 6, 5)
    cells = detector.cells(features)
    expected = cells.mean(dim=1) if sharpness < 0 else cells.amax(dim=1)
    torch.testing.assert_close(detector.pooled(features), expected, atol=1e-2, rtol=0)


def test_gate_depends_on_state_and_image():
    torch.manual_seed(2)
    gate = EvidenceGate(7, 6)
    hidden, words = torch.randn(4, 7), torch.ones(4, 9)
    assert torch.equal(gate(hidden, Evidence(words, gate.image(torch.randn(4, 6)))), words)  # untrained
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    same = hidden[:1].expand(4, -1)
    by_image = gate(same, Evidence(words, gate.image(torch.randn(4, 6))))
    by_state = gate(hidden, Evidence(words, torch.zeros(4, 1)))
    for found in (by_image, by_state):
        assert 0 < found.min() < found.max() < 2
        assert len(found.unique()) == 4


def test_evidence_shifts_logits_by_the_gate(detecting):
    network = detecting.network
    with torch.no_grad():
        memory = network.encode(torch.randn(3, 3, 40, 40))
        state = network.decoder.initial_state(memory)
        out = network.decoder.step(torch.tensor([1, 1, 1]), state, memory)
        without = network.decoder.step(torch.tensor([1, 1, 1]), state, memory._replace(evidence=None))
        expected = network.decoder.evidence_gate(out.state.hidden, memory.evidence)
    torch.testing.assert_close(out.logits - without.logits, expected, atol=1e-4, rtol=1e-4)
    assert expected[:, [4, 6, 9]].abs().min() > 0.01


def test_training_and_search_use_the_same_evidence(detecting):
    """Forced decoding is over the whole vocabulary, search over the words a caption may hold."""
    found = detecting.caption(PHOTOS, DecodingOptions(max_length=6))
    texts = [[tokenize(best.text)] for [best] in found]
    forced = detecting.force_decode(PHOTOS, texts)
    detecting.network.evidence = None
    without = detecting.force_decode(PHOTOS, texts)
    for [best], [one], [other] in zip(found, forced, without, strict=True):
        assert sum(word.log_prob for word in one.words) <= sum(word.log_prob for word in best.words) + 1e-4
        assert one.log_prob != pytest.approx(other.log_prob, abs=1e-4)


def test_words_have_their_evidence_as_support(detecting):
    options = DecodingOptions(beam_size=3, num_captions=3, max_length=6)
    evidence = detecting.encode(PHOTOS).memory.evidence.words
    assert len(evidence[:, 4].unique()) == len(PHOTOS)
    found = detecting.caption(PHOTOS, options)
    forced = detecting.force_decode(PHOTOS, [[tokenize(one.text) for one in captions] for captions in found])
    detected = 0
    for row, captions in enumerate(zip(found, forced, strict=True)):
        for caption in (one for kind in captions for one in kind):
            ids = detecting.vocabulary.encode([word.word for word in caption.words])
            expected = [evidence[row, index].item() if index in (4, 6, 9) else None for index in ids]
            assert [word.support for word in caption.words] == pytest.approx(expected, abs=1e-4)
            detected += len(ids) - expected.count(None)
            record = caption.as_record(attention=False)
            rounded = [None if value is None else round(value, 2) for value in expected]
            assert [word["support"] for word in record["words"]] == pytest.approx(rounded, abs=0.01)
    assert detected


def test_network_without_evidence_gives_no_support(captioner):
    [[caption], *_] = captioner.caption(PHOTOS)
    assert {word.support for word in caption.words} == {None}


def test_captions_with_evidence_are_batch_invariant(detecting):
    together = [best.text for [best] in detecting.caption(PHOTOS)]
    assert together == [detecting.caption([photo])[0][0].text for photo in PHOTOS]


def test_captions_train_the_gate_but_not_the_detector(detecting):
    network = detecting.network
    memory = network.encode(torch.randn(2, 3, 40, 40))
    out = network.decoder.step(torch.tensor([1, 1]), network.decoder.initial_state(memory), memory)
    out.logits.log_softmax(dim=1)[:, 4].sum().backward()
    assert all(parameter.grad is not None for parameter in network.decoder.evidence_gate.parameters())
    assert all(parameter.grad is None for parameter in network.evidence.parameters())


def test_evidence_round_trips(detecting, tmp_path):
    save_checkpoint(tmp_path, detecting.network, detecting.config, detecting.vocabulary, detecting.info)
    again = load_checkpoint(tmp_path)
    assert again.config == detecting.config
    assert again.network.evidence.ids.tolist() == [4, 6, 9]
