"""Training of the label head, and the commands that keep or drop it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY, draw_photo, random_network

from model import Captioner
from model.checkpoint import load_checkpoint, save_checkpoint
from training import average, labels
from training.runs import heads, label_training
from training.runs.initialization import continued_config
from training.runs.label_training import describe_agreement

NAMES = ["dog", "espresso", "cat"]


@pytest.fixture
def lawns(tmp_path: Path) -> list[str]:
    """Green photos called dogs by the classifier and red ones called cats, two of them not in its file."""
    lines, known = ["image,caption,split"], {}
    for number in range(24):
        image = draw_photo(number)
        image.paste(("green", "red")[number % 2], (0, 0, 64, 40))
        image.save(tmp_path / f"{number}.png")
        lines += [f"{number}.png,a lawn,{'val' if number > 18 else 'train'}"]
        known[f"{number}.png"] = {str(2 * (number % 2)): 0.8, "1": 0.05}
    del known["0.png"], known["19.png"]
    (tmp_path / "lawns.csv").write_text("\n".join(lines))
    (tmp_path / "labels.json").write_text(json.dumps({"labels": NAMES, "photos": known}))
    data = ["--captions", str(tmp_path / "lawns.csv"), "--images", str(tmp_path)]
    return [*data, "--labels", str(tmp_path / "labels.json"), "--width", "8", "--epochs", "1"]


@pytest.fixture
def labelling(config, vocabulary, tmp_path: Path) -> Path:
    """A checkpoint with labels."""
    config = replace(config, labels=3, label_dim=4)
    network = random_network(config)
    network.labels.fill(NAMES)
    save_checkpoint(tmp_path / "labelling", network, config, vocabulary, TINY)
    return tmp_path / "labelling"


def test_command_learns_labels_alone(lawns, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(heads, "MIN_STEPS", 100)
    output = tmp_path / "out"
    assert labels.main(["--checkpoint", str(checkpoint), *lawns, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "3 labels, from 18 training photos" in said
    assert "on 4 photos of val" in said
    scores = json.loads(said[said.rindex("{") :])
    assert (scores["top_1"], scores["top_5"]) == (1.0, 1.0)
    assert {path.name for path in output.iterdir()} == {path.name for path in checkpoint.iterdir()}
    start, found = load_checkpoint(checkpoint), load_checkpoint(output)
    for name, value in start.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value), name
    images = [draw_photo(number) for number in (20, 21)]
    for image, colour in zip(images, ("green", "red"), strict=True):
        image.paste(colour, (0, 0, 64, 40))
    for [caption], name in zip(Captioner.load(output).caption(images), ("dog", "cat"), strict=True):
        best, *others = caption.labels
        assert best.name == name
        assert 0.5 < best.probability < 0.95
        assert all(label.probability < 0.5 for label in others)


def test_retraining_replaces_labels(lawns, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "MIN_STEPS", 5)
    first, second = tmp_path / "first", tmp_path / "second"
    for start, output in ((checkpoint, first), (first, second)):
        assert labels.main(["--checkpoint", str(start), *lawns, "--output", str(output)]) == 0
    assert load_checkpoint(first).info.sha256 == load_checkpoint(second).info.sha256


def test_agreement_is_that_of_an_example():
    """The first photo agrees, the second within the first five, the third not at all."""
    expected = torch.zeros(3, 8)
    expected[:, :5] = torch.tensor([0.5, 0.2, 0.1, 0.09, 0.08])
    found = torch.full((3, 8), 0.01)
    found[0, :2] = torch.tensor([0.6, 0.3])
    found[1, [7, 0]] = torch.tensor([0.6, 0.3])
    found[2, [3, 4, 5, 6, 7]] = torch.tensor([0.5, 0.2, 0.05, 0.05, 0.05])
    assert describe_agreement(found, expected) == {
        "top_1": 0.333,
        "top_5": 0.667,
        "labels": 2.0,
        "right": 0.833,
    }


def test_finetuning_drops_labels(labelling):
    """They were trained on the features of the old encoder."""
    assert continued_config(load_checkpoint(labelling).config, {}).labels == 0


def test_different_labels_cannot_be_averaged(labelling, vocabulary, tmp_path, capsys):
    other = load_checkpoint(labelling)
    other.network.labels.fill(["dog", "espresso", "cow"])
    save_checkpoint(tmp_path / "other", other.network, other.config, vocabulary, TINY)
    output = ("--output", str(tmp_path / "mean"))
    assert average.main([str(labelling), str(tmp_path / "other"), *output]) == 2
    assert "run training.labels afterwards" in capsys.readouterr().err
    assert average.main([str(labelling), str(labelling), *output]) == 0
    found = load_checkpoint(tmp_path / "mean").network.labels
    assert [found.name(index) for index in range(3)] == NAMES


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (("--labels", "nowhere.json"), "nowhere.json"),
        (("--labels", "others.json"), "name photos by their file names"),
        (("--width", "3000000"), "label_dim = 3000000"),
        (("--checkpoint", "nowhere"), "no checkpoint folder"),
    ],
)
def test_user_error_is_one_line(lawns, checkpoint, tmp_path, capsys, monkeypatch, options, refusal):
    monkeypatch.chdir(tmp_path)
    Path("others.json").write_text('{"labels": ["dog"], "photos": {"z.png": {"0": 0.5}}}')
    arguments = ["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out"), *options]
    assert labels.main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("labels: ")
    assert refusal in line
    assert not (tmp_path / "out").exists()


def test_interrupted_training_writes_nothing(lawns, checkpoint, tmp_path, monkeypatch, capsys):
    def stop(*anything: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(label_training, "fit_classifier", stop)
    assert labels.main(["--checkpoint", str(checkpoint), *lawns, "--output", str(tmp_path / "out")]) == 130
    assert "nothing was written" in capsys.readouterr().err
