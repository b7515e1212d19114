"""Kinds of attention trained alike: nothing is lost or done twice, and the table says what was found."""

import json
from pathlib import Path

import pytest

from model import Captioner
from training import compare
from training.comparison import compare as compare_results
from training.data import read_photographs
from training.run import Run
from training.shapes import write_world

KINDS = ("none", "uniform", "additive")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 30, size=32)
    return folder


def command(world: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--captions", str(world / "captions.json"), "--images", str(world / "images")),
        *("--instances", str(world / "instances.json"), "--output", str(output)),
        *("--encoder", "tiny_cnn", "--encoder-weights", "none", "--image-size", "32"),
        *("--annotation-dim", "24", "--attention-dim", "16", "--embedding-dim", "26", "--hidden-dim", "24"),
        *("--epochs", "2", "--batch-size", "8", "--min-count", "1", "--warmup-steps", "1"),
        *("--workers", "0", "--device", "cpu", *more),
    ]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("comparisons") / "whole"
    assert compare.main(command(world, output, "--kinds", *KINDS)) == 0
    return output


def found_in(output: Path) -> dict[str, dict[str, object]]:
    """The rows by kind, without what the clock decides."""
    rows = json.loads((output / "comparison.json").read_text())["kinds"]
    clock = ("train_seconds", "captions_per_second")
    return {row["kind"]: {name: row[name] for name in row if name not in clock} for row in rows}


def test_every_kind_has_a_row_with_what_was_measured(whole):
    rows = found_in(whole)
    assert set(rows) == set(KINDS)
    for kind, row in rows.items():
        low, high = row["intervals"]["cider"]
        assert low <= row["cider"] <= high
        assert row["parameters"] > 1000
        assert (row["above_additive"] is None) == (kind == "additive")
    assert rows["none"]["attention"] is None
    assert rows["none"]["grounding"]["pointing_accuracy"] is None
    assert rows["uniform"]["attention"]["entropy"] == 1
    grounding = rows["uniform"]["grounding"]
    assert grounding["attention_in_box"] == grounding["chance"]["uniform"]["attention_in_box"]


def test_the_table_says_how_it_was_made_and_leaves_open_what_there_is_not(whole):
    text = (whole / "comparison.md").read_text()
    head, _, *lines = text.splitlines()
    assert "tiny_cnn frozen at 32 pixels" in head
    assert "2 epochs" in head
    cells = {line.split(" | ")[0].strip("| `"): line.split(" | ") for line in lines[2:]}
    assert set(cells) == set(KINDS)
    assert {len(row) for row in cells.values()} == {len(lines[0].split(" | "))}
    assert cells["none"][8:] == ["–"] * 6 + ["– |"]
    assert "–" not in cells["uniform"][:11]


def test_every_checkpoint_can_be_used(whole):
    for kind in KINDS:
        assert Captioner.load(whole / "runs" / f"{kind}-0").config.attention == kind


def test_all_kinds_share_the_features_and_start_alike(whole):
    assert (whole / "features.npy").exists()
    assert not list(whole.glob("runs/*/features.npy"))
    assert not list(whole.glob("runs/*/state.pt"))


def test_a_comparison_that_was_stopped_goes_on_without_doing_anything_twice(
    world, whole, tmp_path, monkeypatch, capsys
):
    started: list[str] = []
    start = Run.start

    def stop_in_the_second(run: Run) -> None:
        started.append(run._options.output.name)
        if len(started) == 2:
            raise KeyboardInterrupt
        start(run)

    monkeypatch.setattr(Run, "start", stop_in_the_second)
    arguments = command(world, tmp_path / "out", "--kinds", *KINDS)
    assert compare.main(arguments) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert compare.main(arguments) == 0
    assert started == ["none-0", "uniform-0", "uniform-0", "additive-0"]
    assert found_in(tmp_path / "out") == found_in(whole)


def test_kinds_and_seeds_may_be_added_later(world, tmp_path):
    output = tmp_path / "out"
    assert compare.main(command(world, output, "--kinds", "additive")) == 0
    assert compare.main(command(world, output, "--kinds", "hard", "--seeds", "0", "1")) == 0
    rows = found_in(output)
    assert {kind: row["seeds"] for kind, row in rows.items()} == {"additive": [0], "hard": [0, 1]}
    assert rows["hard"]["above_additive"]["cider"]["interval"]


def test_results_made_in_another_way_are_not_mixed(world, whole, capsys):
    assert compare.main(command(world, whole, "--learning-rate", "0.1")) == 2
    assert "another recipe" in capsys.readouterr().err


def test_a_kind_that_cannot_be_is_refused_before_anything_is_trained(world, tmp_path, capsys):
    assert compare.main(command(world, tmp_path / "out", "--kinds", "none", "dot", "--hidden-dim", "30")) == 2
    assert "hidden_dim and annotation_dim equal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_split_without_photographs_is_refused_in_one_sentence(world, tmp_path, capsys):
    captions = json.loads((world / "captions.json").read_text())
    captions["images"] = [entry for entry in captions["images"] if entry["split"] != "test"]
    (world / "fewer.json").write_text(json.dumps(captions))
    arguments = command(world, tmp_path / "out", "--split", "test", "--captions", str(world / "fewer.json"))
    assert compare.main(arguments) == 2
    assert "no photographs of the split 'test'" in capsys.readouterr().err


def result(kind: str, seed: int, captions: list[str]) -> dict[str, object]:
    return {
        "kind": kind,
        "seed": seed,
        "parameters": 5,
        "train_seconds": 60.0,
        "captions_per_second": 10.0 + seed,
        "attention": {"entropy": 0.5 + seed / 10, "step_distance": 0.1, "uniform_distance": 0.2},
        "grounding": None,
        "captions": captions,
    }


def test_a_row_is_the_mean_over_its_seeds_and_compared_on_the_same_photographs(world):
    photographs = read_photographs(world / "captions.json", world / "images", ("train",))
    right = [" ".join(photograph.captions[0]) for photograph in photographs]
    wrong = ["a dog"] * len(right)
    rows = compare_results(
        [result("additive", 0, wrong), result("hard", 0, right), result("hard", 1, wrong)], photographs
    )
    additive, hard = rows
    assert additive["above_additive"] is None
    assert hard["seeds"] == [0, 1]
    assert hard["captions_per_second"] == 10.5
    assert hard["attention"]["entropy"] == pytest.approx(0.55)
    above = hard["above_additive"]["cider"]
    assert above["difference"] == pytest.approx(hard["cider"] - additive["cider"], abs=0.011)
    assert above["interval"][0] > 0
