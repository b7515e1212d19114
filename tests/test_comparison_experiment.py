"""training.compare: resuming, refused folders, and the table."""

import json
import shutil
from pathlib import Path

import pytest

from model import Captioner
from model.files import locked
from training import compare
from training.comparison.results import earlier_options
from training.comparison.table import as_markdown
from training.comparison.table import compare as compare_results
from training.data.dataset import load_photos
from training.data.shapes import write_world
from training.engine.config import EARLIER_RUNS, RunOptions
from training.errors import DivergedError
from training.runs.run import Run

pytestmark = pytest.mark.usefixtures("without_pictures")  # only the module's ``whole`` run has them

KINDS = ("none", "uniform", "additive")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 30, size=32)
    return folder


def command(world: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--images", str(world / "images")),
        *(() if "--captions" in more else ("--captions", str(world / "captions.json"))),
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


@pytest.fixture
def started(monkeypatch):
    """The options of runs, which are not trained."""
    runs: list[RunOptions] = []

    def note(run: Run) -> None:
        runs.append(run._options)
        raise DivergedError("not trained")

    monkeypatch.setattr(Run, "start", note)
    return runs


def test_every_option_reaches_the_runs(world, tmp_path, started):
    more = ("--accumulate", "4", "--precision", "bf16", "--skip-problems", "--min-count", "2")
    assert compare.main(command(world, tmp_path / "out", "--kinds", "none", "uniform", *more)) == 2
    for options in started:
        assert (options.accumulate, options.precision, options.min_count) == (4, "bf16", 2)
        assert options.skip_problems
    assert [options.output.name for options in started] == ["none-0", "uniform-0"]


def test_help_offers_no_self_critical_options(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    assert "self-critical" not in capsys.readouterr().out


def test_every_kind_has_a_row(whole):
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


def test_table_states_setup_and_missing_values(whole):
    text = (whole / "comparison.md").read_text()
    head, _, *lines = text.splitlines()
    assert "tiny_cnn frozen at 32 pixels" in head
    assert "2 epochs" in head
    cells = {line.split(" | ")[0].strip("| `"): line.split(" | ") for line in lines[2:]}
    assert set(cells) == set(KINDS)
    assert {len(row) for row in cells.values()} == {len(lines[0].split(" | "))}
    assert cells["none"][8:] == ["–"] * 6 + ["– |"]
    assert "–" not in cells["uniform"][:11]


def test_setup_sentence_lists_non_default_options(whole):
    found = json.loads((whole / "comparison.json").read_text())
    found["settings"]["network"] |= {"cell": "gru", "score_blur": 2}
    found["settings"]["recipe"]["learning_rate"] = 0.0042
    head = as_markdown(found).splitlines()[0]
    assert ", score blur 2, cell gru; " in head
    assert "learning rate 0.0042" in head
    assert "95% bootstrap intervals over photos" in head
    assert not any(word in head for word in ("gate", "dropout", "attention heads", "grid layers"))


def test_every_checkpoint_loads(whole):
    for kind in KINDS:
        assert Captioner.load(whole / "runs" / f"{kind}-0").config.attention == kind


def test_kinds_share_features_and_initial_weights(whole):
    assert (whole / "features.npy").exists()
    assert not list(whole.glob("runs/*/features.npy"))
    assert not list(whole.glob("runs/*/state.pt"))


def test_stopped_comparison_resumes(world, whole, tmp_path, monkeypatch, capsys):
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
    assert "re-run the command to continue" in capsys.readouterr().err
    assert compare.main(arguments) == 0
    assert started == ["none-0", "uniform-0", "uniform-0", "additive-0"]
    assert found_in(tmp_path / "out") == found_in(whole)


def test_kinds_and_seeds_can_be_added(world, tmp_path):
    output = tmp_path / "out"
    assert compare.main(command(world, output, "--kinds", "additive")) == 0
    assert compare.main(command(world, output, "--kinds", "hard", "--seeds", "0", "1")) == 0
    rows = found_in(output)
    assert {kind: row["seeds"] for kind, row in rows.items()} == {"additive": [0], "hard": [0, 1]}
    assert rows["hard"]["above_additive"]["cider"]["interval"]


def test_results_of_other_options_are_refused(world, whole, capsys):
    assert compare.main(command(world, whole, "--learning-rate", "0.1")) == 2
    assert "different recipe" in capsys.readouterr().err


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the whole comparison, to spoil."""
    shutil.copytree(whole, tmp_path / "finished")
    return tmp_path / "finished"


@pytest.mark.parametrize("changed", ["training_captions", "captions", "instances", "min_count"])
def test_results_of_other_data_are_refused(world, finished, tmp_path, capsys, changed):
    more = ["--min-count", "2"] if changed == "min_count" else []
    if changed.endswith("captions"):
        captions = json.loads((world / "captions.json").read_text())
        split = "train" if changed.startswith("training") else "val"
        entry = next(entry for entry in captions["images"] if entry["split"] == split)
        entry["sentences"][0]["raw"] += " indeed"
        (tmp_path / "captions.json").write_text(json.dumps(captions))
        more = ["--captions", str(tmp_path / "captions.json")]
    elif changed == "instances":
        text = (world / "instances.json").read_text()
        (tmp_path / "instances.json").write_text(f"{text} ")
        more = ["--instances", str(tmp_path / "instances.json"), "--instance-images", str(world / "images")]
    assert compare.main(command(world, finished, "--kinds", "none", *more)) == 2
    named = changed if changed == "min_count" else f"{changed}_sha256"
    assert f"different {named}; continue it" in capsys.readouterr().err


def test_comparison_of_an_older_version_resumes(world, finished):
    settings = json.loads((finished / "settings.json").read_text())
    del settings["network"]["score_blur"]
    del settings["decoding"]
    settings["recipe"]["doubly_stochastic_target"] = "1"  # an option that was removed
    (finished / "settings.json").write_text(json.dumps(settings))
    assert compare.main(command(world, finished, "--kinds", "none")) == 0
    del settings["network"]["hidden_dim"]  # 24 here, and so not the default
    (finished / "settings.json").write_text(json.dumps(settings))
    assert compare.main(command(world, finished, "--kinds", "none")) == 2


@pytest.mark.parametrize("name", ["settings.json", "runs/none-0/result.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7"])
def test_damaged_results_are_named(world, finished, capsys, name, text):
    (finished / name).write_text(text)
    assert compare.main(command(world, finished, "--kinds", "none")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(finished) in line
    assert name in line or text == "{}"


def test_result_of_other_photos_is_named(world, finished, capsys):
    path = finished / "runs" / "none-0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"captions": ["a dog"]}))
    assert compare.main(command(world, finished, "--kinds", "none")) == 2
    assert "none-0/result.json does not have one caption for each" in capsys.readouterr().err


def test_unscored_run_is_scored_and_partial_run_trained(world, whole, finished, monkeypatch):
    started: list[str] = []
    start = Run.start

    def note(run: Run) -> None:
        started.append(run._options.output.name)
        start(run)

    monkeypatch.setattr(Run, "start", note)
    for kind in KINDS:
        (finished / "runs" / f"{kind}-0" / "result.json").unlink()
    log = finished / "runs" / "uniform-0" / "log.jsonl"
    log.write_text(log.read_text().splitlines()[0] + '\n{"epoch": 2, "encod')
    (finished / "runs" / "additive-0" / "manifest.json").unlink()
    assert compare.main(command(world, finished, "--kinds", *KINDS)) == 0
    assert started == ["uniform-0", "additive-0"]
    assert found_in(finished) == found_in(whole)


def test_other_folders_are_left_alone(world, whole, tmp_path, capsys):
    shutil.copytree(whole / "runs" / "none-0", tmp_path / "runs" / "none-0")
    (tmp_path / "runs" / "none-0" / "result.json").unlink()
    assert compare.main(command(world, tmp_path, "--kinds", "none")) == 2
    assert "has runs of something else" in capsys.readouterr().err
    assert (tmp_path / "runs" / "none-0" / "manifest.json").exists()


def test_diverged_kind_does_not_stop_the_others(world, whole, tmp_path, monkeypatch, capsys):
    start = Run.start

    def diverge(run: Run) -> None:
        if run._options.output.name == "none-0":
            raise DivergedError("The loss became nan | at step 3.")
        start(run)

    output = tmp_path / "out"
    monkeypatch.setattr(Run, "start", diverge)
    assert compare.main(command(world, output, "--kinds", *KINDS)) == 0
    expected = {"kind": "none", "seed": 0, "failed": "The loss became nan | at step 3."}
    assert json.loads((output / "comparison.json").read_text())["failed"] == [expected]
    assert json.loads((output / "runs" / "none-0" / "result.json").read_text()) == expected
    assert found_in(output) == {kind: row for kind, row in found_in(whole).items() if kind != "none"}
    *_, heading, line = [line.split(" | ") for line in (output / "comparison.md").read_text().splitlines()]
    assert line[:2] == ["| `none`, seed 0", "failed: The loss became nan / at step 3."]
    assert len(line) == len(heading)


def test_all_kinds_failing_exits_2(world, tmp_path, capsys):
    arguments = command(world, tmp_path / "out", "--kinds", "none", "hard", "--learning-rate", "1e38")
    for _ in range(2):
        assert compare.main(arguments) == 2
        assert "No kind could be trained" in capsys.readouterr().err.splitlines()[-1]
    assert "failed: " in (tmp_path / "out" / "comparison.md").read_text()


def test_second_process_on_the_folder_is_refused(world, finished, capsys):
    with locked(finished):
        assert compare.main(command(world, finished, "--kinds", "none")) == 2
    assert "Another run is writing to" in capsys.readouterr().err
    assert compare.main(command(world, finished, "--kinds", "none")) == 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--attention-heads", "0"], "attention_heads = 0"),
        (["--hidden-dim", "-3"], "hidden_dim = -3"),
        (["--dropout", "2"], "dropout = 2"),
        (["--seeds", "0", "-1"], "seed is -1"),
        (["--min-count", "0"], "--min-count is 0"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_invalid_option_is_refused_before_training(world, tmp_path, capsys, more, named):
    assert compare.main(command(world, tmp_path / "out", *more)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--instance-images", "--instance-captions"])
def test_instance_options_need_instances(world, tmp_path, capsys, option):
    arguments = command(world, tmp_path / "out", option, str(world / "images"))
    at = arguments.index("--instances")
    del arguments[at : at + 2]
    assert compare.main(arguments) == 2
    assert "need --instances." in capsys.readouterr().err


def test_invalid_kind_is_refused_before_training(world, tmp_path, capsys):
    assert compare.main(command(world, tmp_path / "out", "--kinds", "none", "dot", "--hidden-dim", "30")) == 2
    assert "hidden_dim and annotation_dim equal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_empty_split_is_refused(world, tmp_path, capsys):
    captions = json.loads((world / "captions.json").read_text())
    captions["images"] = [entry for entry in captions["images"] if entry["split"] != "test"]
    (world / "fewer.json").write_text(json.dumps(captions))
    arguments = command(world, tmp_path / "out", "--split", "test", "--captions", str(world / "fewer.json"))
    assert compare.main(arguments) == 2
    assert "the split test has no captioned photos" in capsys.readouterr().err


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


def test_row_is_mean_over_seeds_with_paired_difference(world):
    photos = load_photos([(world / "captions.json", world / "images")], splits=("train",))
    right = [" ".join(photo.captions[0]) for photo in photos]
    wrong = ["a dog"] * len(right)
    rows = compare_results(
        [result("additive", 0, wrong), result("hard", 0, right), result("hard", 1, wrong)], photos
    )
    additive, hard = rows
    assert additive["above_additive"] is None
    assert hard["seeds"] == [0, 1]
    assert hard["captions_per_second"] == 10.5
    assert hard["attention"]["entropy"] == pytest.approx(0.55)
    above = hard["above_additive"]["cider"]
    assert above["difference"] == pytest.approx(hard["cider"] - additive["cider"], abs=0.011)
    assert above["interval"][0] > 0


def test_grounding_interval_needs_a_single_run(world):
    photos = load_photos([(world / "captions.json", world / "images")], splits=("train",))
    figures = {"words": 3, "pointing_accuracy": 0.5, "intervals": {"pointing_accuracy": [0.4, 0.6]}}
    captions = ["a dog"] * len(photos)
    results = [
        result(kind, seed, captions) | {"grounding": {**figures, "reference": figures}}
        for kind, seed in (("none", 0), ("hard", 0), ("hard", 1))
    ]
    alone, several = (row["grounding"] for row in compare_results(results, photos))
    assert alone["intervals"] == alone["reference"]["intervals"] == {"pointing_accuracy": [0.4, 0.6]}
    assert "intervals" not in several
    assert several["words"] == several["reference"]["words"] == 3


def test_older_experiments_continue_as_they_began(tmp_path):
    assert earlier_options(tmp_path / "new") == dict.fromkeys(EARLIER_RUNS, False)
    (tmp_path / "settings.json").write_text(json.dumps({"end_after_truncation": False}))
    assert earlier_options(tmp_path) == {"end_after_truncation": False, "without_endings": True}
