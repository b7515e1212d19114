"""Training of the word detector, and training a captioner that has one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_photo, random_network

from model import Captioner, CheckpointInfo
from model.checkpoint import load_checkpoint, save_checkpoint
from training import average, evidence, fit
from training.engine.config import TrainConfig
from training.engine.trainer import Trainer
from training.runs import evidence_training, heads
from training.runs.heads import fit_classifier
from training.runs.initialization import continued_config, grown_network

RECIPE = ("--min-count", "2", "--width", "8", "--epochs", "1")
INFO = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")


@pytest.fixture
def lawns(tmp_path: Path) -> list[str]:
    """Green photos of dogs and red ones of cats, some of them for val, as a CSV file."""
    lines = ["image,caption,split"]
    for number in range(24):
        image = draw_photo(number)
        image.paste(("green", "red")[number % 2], (0, 0, 64, 40))
        image.save(tmp_path / f"{number}.png")
        animal = ("a dog runs on grass", "a cat sits")[number % 2]
        lines += [f"{number}.png,{animal},{'val' if number > 19 else 'train'}"]
    (tmp_path / "lawns.csv").write_text("\n".join(lines))
    return ["--captions", str(tmp_path / "lawns.csv"), "--images", str(tmp_path)]


@pytest.fixture
def detecting(config, vocabulary, tmp_path: Path) -> Path:
    """A checkpoint with evidence of three words."""
    config = replace(config, evidence=3, evidence_dim=4)
    network = random_network(config)
    network.evidence.ids.copy_(torch.tensor([4, 6, 9]))
    save_checkpoint(tmp_path / "detecting", network, config, vocabulary, INFO)
    return tmp_path / "detecting"


def test_command_learns_words(lawns, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(heads, "MIN_STEPS", 100)
    output = tmp_path / "out"
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(output), *RECIPE]
    assert evidence.main(arguments) == 0
    said = capsys.readouterr().out
    assert "evidence of 7 words, from 20 training photos" in said
    assert "4 photos of val" in said
    assert {path.name for path in output.iterdir()} == {path.name for path in checkpoint.iterdir()}
    start, found = load_checkpoint(checkpoint), load_checkpoint(output)
    for name, value in start.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value), name
    captioner = Captioner.load(output)
    dog, cat = captioner.vocabulary.encode(["dog", "cat"])
    images = [draw_photo(number) for number in (20, 21)]
    for image, colour in zip(images, ("green", "red"), strict=True):
        image.paste(colour, (0, 0, 64, 40))
    words = captioner.encode(images).memory.evidence.words
    assert words[0, dog] > 0.3 > -0.3 > words[0, cat]
    assert words[1, cat] > 0.3 > -0.3 > words[1, dog]


def test_word_in_a_part_of_the_photo_is_learnt(config, monkeypatch):
    monkeypatch.setattr(heads, "MIN_STEPS", 100)
    rng = np.random.default_rng(0)
    kinds = rng.integers(2, size=60)
    features = rng.normal(size=(60, 2, 25, 64)).astype(np.float16)
    features[kinds == 1, :, :8, :16] += 6
    targets = [torch.eye(2)[kind].to_sparse() for kind in kinds]
    detector = random_network(replace(config, evidence=2, evidence_dim=16)).evidence
    pairs = [(one, one) for one in targets]
    fit_classifier(detector, features, pairs, torch.ones(2), epochs=1, desc="training")
    log_odds = detector(torch.from_numpy(features[:, 0]).float()).detach()
    assert ((log_odds[:, 1] > log_odds[:, 0]).numpy() == (kinds == 1)).mean() > 0.95


def test_retraining_replaces_detector(lawns, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "MIN_STEPS", 5)
    first, second = tmp_path / "first", tmp_path / "second"
    for start, output in ((checkpoint, first), (first, second)):
        assert evidence.main(["--checkpoint", str(start), *lawns, "--output", str(output), *RECIPE]) == 0
    assert load_checkpoint(first).info.sha256 == load_checkpoint(second).info.sha256


def test_trainer_freezes_the_detector(detecting):
    """Distributed training would wait for its gradients, which never come."""
    network = load_checkpoint(detecting).network
    Trainer(network, TrainConfig(), steps_per_epoch=1)
    frozen = {name.split(".")[0] for name, value in network.named_parameters() if not value.requires_grad}
    assert frozen == {"evidence"}


def test_finetuning_trains_the_gate_alone(lawns, detecting, tmp_path):
    run = tmp_path / "run"
    more = (
        "--epochs",
        "1",
        "--frozen-epochs",
        "0",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--output",
        str(run),
    )
    assert fit.main([*lawns, "--start-from", str(detecting), *more]) == 0
    start, found = load_checkpoint(detecting).network, load_checkpoint(run).network
    for name, value in start.evidence.state_dict().items():
        assert torch.equal(found.evidence.state_dict()[name], value), name
    assert found.decoder.evidence_gate.state.bias.item() != 0


def test_finetuning_keeps_evidence_with_new_words(detecting):
    start = load_checkpoint(detecting)
    vocabulary = start.vocabulary.grown([["zebra"]], min_count=1)
    config = replace(continued_config(start.config, {}), vocabulary_size=len(vocabulary))
    network = grown_network(start, config, vocabulary, [["a", "zebra"]])
    features = torch.randn(2, *network.encoder.feature_shape)
    words = network.encode_features(features).evidence.words
    assert torch.equal(words[:, :-1], start.network.encode_features(features).evidence.words)
    assert not words[:, -1].any()


def test_different_words_cannot_be_averaged(detecting, config, vocabulary, tmp_path, capsys):
    other = load_checkpoint(detecting)
    other.network.evidence.ids[1] = 5
    save_checkpoint(tmp_path / "other", other.network, other.config, vocabulary, INFO)
    output = ("--output", str(tmp_path / "mean"))
    assert average.main([str(detecting), str(tmp_path / "other"), *output]) == 2
    assert "words with evidence" in capsys.readouterr().err
    assert average.main([str(detecting), str(detecting), *output]) == 0
    assert load_checkpoint(tmp_path / "mean").network.evidence.ids.tolist() == [4, 6, 9]


def test_interrupted_training_writes_nothing(lawns, checkpoint, tmp_path, monkeypatch, capsys):
    def stop(*anything: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evidence_training, "fit_classifier", stop)
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out"), *RECIPE]
    assert evidence.main(arguments) == 130
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "refusal"),
    [
        (("--min-count", "900"), "smaller --min-count"),
        (("--width", "3000000"), "evidence_dim = 3000000"),
        (("--checkpoint", "nowhere"), "no checkpoint folder"),
    ],
)
def test_user_error_is_one_line(lawns, checkpoint, tmp_path, capsys, option, refusal):
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out"), *option]
    assert evidence.main(arguments) == 2
    assert refusal in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
