"""Learning the confidence of a captioner, and the commands that leave it out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, draw_photo, random_network

from model import Captioner
from model.checkpoint import load_checkpoint, save_checkpoint
from model.confidence import FEATURES, ConfidenceModel
from training import average, confidence, evidence, fit, phrases
from training.evaluation.calibration import auroc, calibration_error, describe_confidence
from training.evaluation.correctness import Correctness
from training.runs import confidence_training, heads
from training.runs.confidence_training import cross_validated, fit_confidence


@pytest.fixture
def lawns(tmp_path: Path) -> list[str]:
    """Photos of dogs and of cats, half of them for val, as a CSV file."""
    lines = ["image,caption,split"]
    for number in range(24):
        draw_photo(number).save(tmp_path / f"{number}.png")
        animal = ("a dog runs on grass", "a cat sits")[number % 2]
        lines += [f"{number}.png,{animal},{('train', 'val')[number // 12]}"]
    (tmp_path / "lawns.csv").write_text("\n".join(lines))
    return ["--captions", str(tmp_path / "lawns.csv"), "--images", str(tmp_path)]


@pytest.fixture
def confident(config, vocabulary, tmp_path: Path) -> Path:
    """A checkpoint with confidence, phrases and evidence."""
    config = replace(config, confidence=len(FEATURES), object_names=1)
    network = random_network(config)
    network.confidence.fill({(5,): 1})
    save_checkpoint(tmp_path / "confident", network, config, vocabulary, TINY)
    return tmp_path / "confident"


def drawn(photos: int = 600, noise: float = 0.0) -> tuple[torch.Tensor, Correctness]:
    """Features of captions and whether they are right, which the features say but for ``noise``."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(photos, len(FEATURES))) * (1, 3, 0.1, 20) + (0, 5, 2, -40)
    is_present = features[:, 0] + noise * rng.normal(size=photos) > -0.5
    is_right = is_present & (features[:, 2] + noise * rng.normal(size=photos) / 10 > 2)
    found = Correctness(is_right, np.ones(photos), (~is_present).astype(float))
    return torch.tensor(features, dtype=torch.float32), found


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.97), (0.5, 0.9)])
def test_learnable_confidence_is_learnt(noise, least):
    features, correctness = drawn(noise=noise)
    found = describe_confidence(cross_validated(features, correctness, seed=0), correctness)
    assert found["auroc_right"] > least
    assert found["auroc_absent"] > 0.7
    assert found["ece"] < 0.08


def test_shuffled_outcomes_are_not_learnt():
    features, correctness = drawn()
    order = np.random.default_rng(1).permutation(len(features))
    shuffled = correctness.subset(order)
    found = cross_validated(features, shuffled, seed=0)
    assert 0.4 < auroc(found, shuffled.is_right) < 0.6
    assert calibration_error(found, shuffled.is_right) < 0.08


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_constant_features_give_the_base_rate(rate):
    is_right = np.arange(200) < 200 * rate
    model = ConfidenceModel(len(FEATURES), 0)
    features = torch.tensor([[2.0, 1.0, 0.5, -7.0]]).expand(200, -1)
    fit_confidence(model, features, Correctness(is_right, np.ones(200), np.zeros(200)))
    assert model(features[:1]).item() == pytest.approx(rate, abs=0.02)


def test_command_learns_confidence_alone(lawns, checkpoint, tmp_path, capsys):
    outputs = tmp_path / "first", tmp_path / "second"
    for start, output in ((checkpoint, outputs[0]), (outputs[0], outputs[1])):
        assert confidence.main(["--checkpoint", str(start), *lawns, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "confidence from 12 photos" in said
    scores = json.loads(said[said.rindex("folds:") + 6 :])
    assert set(scores) == {lawns[1]}
    assert scores[lawns[1]]["photographs"] == 12
    first, second = (load_checkpoint(output) for output in outputs)
    assert first.info.sha256 == second.info.sha256
    for name, value in load_checkpoint(checkpoint).network.state_dict().items():
        assert torch.equal(first.network.state_dict()[name], value), name
    names = first.network.confidence.as_dict()
    assert {first.vocabulary.text(ids): number > 0 for ids, number in names.items()} == {
        "dog": True,
        "cat": True,
    }
    [[caption]] = Captioner.load(outputs[0]).caption([draw_photo(0)])
    assert 0 < caption.confidence < 1


def test_every_set_has_scores_of_its_own(lawns, checkpoint, tmp_path, capsys):
    second = tmp_path / "second.csv"
    second.write_text("image,caption,split\n" + "\n".join(f"{n}.png,a dog,val" for n in range(6)))
    data = [*lawns, "--captions", str(second), "--images", str(tmp_path)]
    output = ("--output", str(tmp_path / "out"))
    assert confidence.main(["--checkpoint", str(checkpoint), *data, *output]) == 0
    said = capsys.readouterr().out
    scores = json.loads(said[said.rindex("folds:") + 6 :])
    counts = {name: found["photographs"] for name, found in scores.items()}
    assert counts == {lawns[1]: 12, str(second): 6, "all": 18}


def test_boxes_count_as_present(lawns, checkpoint, tmp_path, capsys, monkeypatch):
    learnt = []
    monkeypatch.setattr(confidence_training, "fit_confidence", lambda *found: learnt.append(found[-1]))
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(24)]
    boxes = [{"image_id": n, "category_id": k, "bbox": [0, 0, 9, 9]} for n in range(24) for k in (1, 2)]
    boxed = {"categories": categories, "images": images, "annotations": boxes}
    (tmp_path / "boxes.json").write_text(json.dumps(boxed))
    for number, more in enumerate(((), ("--instances", str(tmp_path / "boxes.json")))):
        output = ("--output", str(tmp_path / f"out{number}"))
        assert confidence.main(["--checkpoint", str(checkpoint), *lawns, *more, *output]) == 0
    without, boxed = learnt[0], learnt[6]
    assert without.absent.any()
    assert not boxed.absent.any()
    assert (boxed.objects == without.objects).all()


@pytest.mark.parametrize("command", ["fit", "phrases", "evidence", "average"])
def test_commands_that_change_captions_leave_confidence_out(
    lawns, confident, tmp_path, capsys, monkeypatch, without_pictures, command
):
    monkeypatch.setattr(heads, "MIN_STEPS", 1)
    output = ["--output", str(tmp_path / "out")]
    small = ["--min-count", "2", "--width", "4", "--epochs", "1"]
    run = {
        "fit": (fit, ["--start-from", str(confident), *lawns, "--epochs", "1", "--workers", "0"]),
        "phrases": (phrases, ["--checkpoint", str(confident), *lawns, *small]),
        "evidence": (evidence, ["--checkpoint", str(confident), *lawns, *small]),
        "average": (average, [str(confident), str(confident)]),
    }
    module, arguments = run[command]
    assert module.main([*arguments, *output]) == 0
    assert "run training.confidence on the result" in capsys.readouterr().err
    found = load_checkpoint(tmp_path / "out")
    assert (found.config.confidence, found.config.object_names) == (0, 0)
    assert not [name for name in found.network.state_dict() if name.startswith("confidence")]


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (("--split", "restval"), "0 captioned photos of the split 'restval'"),
        (("--instances", "nowhere.json"), "nowhere.json"),
        (("--checkpoint", "nowhere"), "no checkpoint folder"),
    ],
)
def test_user_error_is_one_line(lawns, checkpoint, tmp_path, capsys, options, refusal):
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out"), *options]
    assert confidence.main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("confidence: ")
    assert refusal in line
    assert not (tmp_path / "out").exists()


def test_interrupted_training_writes_nothing(lawns, checkpoint, tmp_path, monkeypatch, capsys):
    def stop(*anything: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(confidence_training, "fit_confidence", stop)
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out")]
    assert confidence.main(arguments) == 130
    assert "nothing was written" in capsys.readouterr().err
