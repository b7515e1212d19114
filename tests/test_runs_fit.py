"""training.fit: what a run writes, and that interrupted runs resume exactly."""

import json
import os
import re
import shutil
import signal
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from model import Captioner, ModelConfig
from model.checkpoint import load_checkpoint
from model.files import locked
from model.network import CaptionNetwork
from model.options import flag, options_of
from training import average, compare, fit, phrases
from training.data.batches import PhotoDataset
from training.data.shapes import write_world
from training.engine.config import RunOptions, TrainConfig
from training.engine.trainer import Trainer

pytestmark = pytest.mark.usefixtures("without_pictures")  # only the module's ``whole`` run has them

EPOCHS, STEPS = 2, 2  # 16 of the 20 photos are for training, 8 a batch
TIMES = ("train_seconds", "val_seconds")


class KilledError(BaseException):
    """The process dies: nothing may run after it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 20, size=32)
    return folder


def command(world: Path, run: Path, *more: str) -> list[str]:
    return [
        *("--images", str(world / "images")),
        *(() if "--captions" in more else ("--captions", str(world / "captions.json"))),
        *("--output", str(run), "--encoder", "tiny_cnn", "--encoder-weights", "none", "--image-size", "32"),
        *("--epochs", str(EPOCHS), "--frozen-epochs", "1", "--batch-size", "8", "--min-count", "1"),
        *("--warmup-steps", "1", "--workers", "0", "--device", "cpu", "--name", "shapes"),
        *("--annotation-dim", "24", "--attention-dim", "25", "--embedding-dim", "26", "--hidden-dim", "27"),
        *more,
    ]


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("runs") / "deeper" / "whole"
    assert fit.main(command(world, run)) == 0
    return run


def log_of(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def assert_same_run(run: Path, whole: Path) -> None:
    """Both checkpoints, the log and the weights in full precision."""
    for folder in ("", "last"):
        assert load_checkpoint(run / folder).info.sha256 == load_checkpoint(whole / folder).info.sha256
    assert log_of(run) == log_of(whole)
    network, expected = (
        torch.load(folder / "state.pt", weights_only=True)["network"] for folder in (run, whole)
    )
    assert all(torch.equal(network[name], expected[name]) for name in expected)


def test_run_saves_best_and_last_epoch(whole, world):
    for folder in (whole, whole / "last"):
        captioner = Captioner.load(folder)
        assert captioner.info.name == "shapes"
        assert captioner.config.encoder == "tiny_cnn"
        assert {"circle", "red", "above"} <= set(captioner.vocabulary.words)


def test_log_has_one_line_per_epoch(whole):
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["phase"] for line in lines] == ["frozen", "learning"]
    for line in lines:
        assert {"cross_entropy", "doubly_stochastic", "cider", "bleu_4", "distinct_captions"} <= set(line)
        assert line["train_seconds"] >= 0  # so short an epoch may be rounded to nothing


def test_val_and_test_photos_are_not_trained_on(world, whole, tmp_path):
    listed = json.loads((world / "captions.json").read_text())
    for entry in listed["images"]:
        if entry["split"] in ("val", "test"):
            entry["sentences"] = [{"raw": "zebra zebra zebra zebra zebra zebra"}]
    (tmp_path / "captions.json").write_text(json.dumps(listed))
    shutil.copytree(world / "images", tmp_path / "images")
    assert fit.main(command(tmp_path, tmp_path / "run")) == 0
    last = load_checkpoint(tmp_path / "run" / "last").info.sha256
    assert last == load_checkpoint(whole / "last").info.sha256


def test_existing_run_is_not_overwritten(whole, world, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert fit.main(command(world, whole)) == 2
    assert "already has a run or a checkpoint; resume it with fit --resume" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_resuming_finished_run_changes_nothing(whole, world, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    assert fit.main(command(world, run, "--resume")) == 0
    assert_same_run(run, whole)


@pytest.mark.parametrize(("moment", "step"), [("forward", 1), ("forward", 4), ("update", 2), ("update", 3)])
def test_run_resumes_exactly_after_ctrl_c_in_a_step(
    world, whole, tmp_path, monkeypatch, capsys, moment, step
):
    run = tmp_path / "run"
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    teacher_force, steps = CaptionNetwork.teacher_force, []

    def press_ctrl_c(*_):
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(signal.SIGINT)

    def interrupted(self, *arguments):
        result = teacher_force(self, *arguments)  # by now dropout has drawn its random numbers
        press_ctrl_c()
        return result

    hook = None
    try:
        with monkeypatch.context() as patch:
            if moment == "forward":
                patch.setattr(CaptionNetwork, "teacher_force", interrupted)
            else:
                hook = register_optimizer_step_post_hook(press_ctrl_c)
            assert fit.main(command(world, run)) == 130
        assert "re-run with --resume to continue" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
        if hook:
            hook.remove()
    assert fit.main(command(world, run, "--resume")) == 0
    assert_same_run(run, whole)


def test_run_resumes_exactly_after_ctrl_c_in_validation(world, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def stop(self, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Captioner, "caption", stop)
        assert fit.main(command(world, run)) == 130
    assert fit.main(command(world, run, "--resume")) == 0
    assert_same_run(run, whole)


def test_ctrl_c_before_first_step_offers_no_resume(world, tmp_path, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(CaptionNetwork, "__init__", stop)
    assert fit.main(command(world, tmp_path / "run")) == 130
    assert "--resume" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("save_minutes", "survived"),
    [("0", 1), ("0", 3), ("60", 3)],
    ids=["epoch 1", "epoch 2", "saved long ago"],
)
def test_run_resumes_exactly_after_kill(world, whole, tmp_path, monkeypatch, save_minutes, survived):
    run = tmp_path / "run"
    train_step, steps = Trainer.train_step, []

    def train_or_die(self, batch):
        if len(steps) == survived:
            raise KilledError
        steps.append(1)
        return train_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_or_die)
        with pytest.raises(KilledError):
            fit.main(command(world, run, "--save-minutes", save_minutes))
    assert fit.main(command(world, run, "--resume")) == 0
    assert_same_run(run, whole)


def test_cached_features_give_same_outputs(world, tmp_path):
    run = tmp_path / "run"
    assert fit.main(command(world, run, "--cache-features")) == 0
    assert (run / "features.npy").is_file()
    assert [line["phase"] for line in log_of(run)] == ["frozen", "learning"]
    assert Captioner.load(run).config.image_size == 32
    assert Captioner.load(run / "last").info.name == "shapes"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_workers_do_not_change_the_run(world, whole, tmp_path):
    assert fit.main(command(world, tmp_path / "run", "--workers", "2")) == 0
    assert_same_run(tmp_path / "run", whole)


def one_line(text: str) -> str:
    """The only line of ``text`` that a progress bar did not write."""
    [line] = [line for line in text.split("\n") if line.strip() and "\r" not in line]
    return line


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--captions", "nowhere.json"], "nowhere.json"),
        (["--device", "abacus"], "no device"),
        (["--min-count", "100000"], "--min-count"),
        (["--frozen-epochs", "-1"], "--frozen-epochs"),
        (["--encoder-weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--encoder-weights", "published"], "tiny_cnn"),
        (["--image-size", "0"], "image_size = 0"),
        (["--resume"], "no run"),
        (["--learning-rate", "1e30"], "lower learning rate"),
        (["--learning-rate", "1e38"], "lower learning rate"),
        (["--learning-rate", "1e30", "--attention", "hard"], "lower learning rate"),
        (["--learning-rate", "nan"], "--learning-rate is nan; it must be a number"),
        (["--learning-rate", "inf"], "--learning-rate is inf; it must be a number"),
        (["--weight-decay", "nan"], "--weight-decay is nan; it must be a number"),
        (["--clip-norm", "nan"], "--clip-norm is nan; it must be a number"),
        (["--validate-every", "0"], "--validate-every is 0"),
        (["--workers", "-1"], "--workers is -1"),
        (["--save-minutes", "nan"], "--save-minutes is nan"),
        (["--save-minutes", "-1"], "--save-minutes is -1"),
        (["--save-minutes", "inf"], "--save-minutes is inf"),
        (["--min-count", "0"], "--min-count is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", str(2**63)], f"seed is {2**63}"),
    ],
)
def test_user_error_exits_2_with_one_line(world, tmp_path, capsys, more, named):
    assert fit.main(command(world, tmp_path / "run", *more)) == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith("fit: ")
    assert named in line


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--encoder", "resnet5"], "--encoder"),
        (["--epochs", "two"], "--epochs"),
        (["--precision", "fp8"], "--precision"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_invalid_option_exits_2(world, tmp_path, capsys, more, named):
    with pytest.raises(SystemExit) as caught:
        fit.main(command(world, tmp_path / "run", *more))
    assert caught.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_divergence_in_last_step_is_reported(world, tmp_path, capsys):
    more = ("--learning-rate", "1e30", "--batch-size", "16", "--epochs", "1")
    assert fit.main(command(world, tmp_path / "run", *more)) == 2
    sentence = capsys.readouterr().err.split("\r")[-1]
    assert sentence.startswith("fit: The network's output is not finite")


@pytest.mark.parametrize("output", ["file", "file/run"])
@pytest.mark.parametrize("main", [fit.main, compare.main, phrases.main, average.main])
def test_unusable_output_is_refused_before_photos(tmp_path, capsys, main, output):
    (tmp_path / "file").write_text("not a folder")
    if main is average.main:
        arguments = ["nowhere", "nowhere"]
    else:
        arguments = ["--captions", "nowhere.json", "--images", "nowhere"]
    if main is phrases.main:
        arguments += ["--checkpoint", "nowhere"]
    assert main([*arguments, "--output", str(tmp_path / output)]) == 2
    line = one_line(capsys.readouterr().err)
    assert f"Cannot write to {tmp_path / output}: {tmp_path / 'file'} is not a folder" in line


def test_read_only_output_is_refused_before_photos(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert fit.main(command(world, tmp_path / "run", "--captions", "nowhere.json")) == 2
    assert f"{tmp_path} is not writable" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("more", "named"),
    [(["--hidden-dim", "0"], "hidden_dim"), (["--encoder-weights", "none.pth"], "none.pth")],
)
def test_network_is_checked_before_photos(world, tmp_path, capsys, more, named):
    assert fit.main(command(world, tmp_path / "run", "--captions", "nowhere.json", *more)) == 2
    assert named in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_second_run_on_one_output_is_refused(world, whole, tmp_path, capsys, more):
    run = tmp_path / "run"
    if more:
        shutil.copytree(whole, run)
    with locked(run):
        assert fit.main(command(world, run, "--captions", "nowhere.json", *more)) == 2
    assert f"Another run is writing to {run}" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("damage", ["oops}", "7", "{}", "[" * 100_000])
def test_damaged_log_line_is_named(world, whole, tmp_path, capsys, damage):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with (run / "log.jsonl").open("a") as log:
        log.write(f"{damage}\n")
    assert fit.main(command(world, run, "--resume")) == 2
    assert f"{run / 'log.jsonl'}, line 3, is damaged" in one_line(capsys.readouterr().err)


def test_log_line_cut_off_by_a_crash_is_dropped(world, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "cross_en')
    assert fit.main(command(world, run, "--resume")) == 0
    assert log_of(run) == log_of(whole)


@pytest.mark.parametrize(
    "option", [("--doubly-stochastic-target", "T/L"), ("--self-critical-encoder-learning-rate", "1e-5")]
)
def test_removed_option_is_explained(world, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as caught:
        fit.main(command(world, tmp_path / "run", "--resume", *option))
    assert caught.value.code == 2
    assert f"{option[0]} was removed" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split_is_refused(world, tmp_path, capsys, split):
    listed = json.loads((world / "captions.json").read_text())
    listed["images"] = [entry for entry in listed["images"] if entry["split"] != split]
    (tmp_path / "captions.json").write_text(json.dumps(listed))
    shutil.copytree(world / "images", tmp_path / "images")
    assert fit.main(command(tmp_path, tmp_path / "run")) == 2
    assert "both splits" in one_line(capsys.readouterr().err)


def test_damaged_photos_are_listed_or_skipped(world, tmp_path, capsys):
    shutil.copytree(world, tmp_path / "world")
    for name in ("000003.png", "000005.png"):
        (tmp_path / "world" / "images" / name).write_bytes(b"damaged")
    assert fit.main(command(tmp_path / "world", tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert "000003.png" in said
    assert "000005.png" in said
    assert "--skip-problems" in said
    assert fit.main(command(tmp_path / "world", tmp_path / "run", "--skip-problems")) == 0
    assert json.loads((tmp_path / "run" / "origin.json").read_text())["photographs"] == 14


def test_option_defaults_match_configs(capsys):
    with pytest.raises(SystemExit) as caught:
        fit.main(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    configs = (ModelConfig, TrainConfig, RunOptions)
    defaults = {one.name: one.default for config in configs for one in fields(config)}
    known = {name: one for config in configs for name, one in options_of(config).items() if one.help}
    assert len(known) > 30
    for name, one in known.items():
        found = re.split(rf"{flag(name)} (?:[A-Z]+ )?{re.escape(one.help)}", text)[1]
        if one.kind is not bool and defaults[name] is not None:
            assert re.match(rf"(; [^;]*)?; default {re.escape(str(defaults[name]))}( |$)", found), found[:60]


def test_network_options_are_used(world, tmp_path):
    asked = ("--attention", "sentinel", "--cell", "gru", "--gate", "vector", "--query", "state_and_word")
    run = tmp_path / "run"
    assert fit.main(command(world, run, *asked, "--grid", "joined", "--epochs", "1")) == 0
    found = Captioner.load(run).config
    assert (found.attention, found.cell, found.gate) == ("sentinel", "gru", "vector")
    assert (found.query, found.grid, found.hidden_dim) == ("state_and_word", "joined", 27)


def test_invalid_network_is_refused(world, tmp_path, capsys):
    assert fit.main(command(world, tmp_path / "run", "--attention", "dot")) == 2
    assert "hidden_dim and annotation_dim equal" in capsys.readouterr().err


def test_epochs_without_validation_have_no_scores(world, tmp_path):
    run = tmp_path / "run"
    assert fit.main(command(world, run, "--validate-every", "5", "--epochs", "3")) == 0
    assert [line["cider"] is None for line in log_of(run)] == [True, True, False]


def test_constant_maps_warn(world, tmp_path, capsys):
    run = tmp_path / "run"
    assert fit.main(command(world, run, "--learning-rate", "0", "--epochs", "1")) == 0
    assert "barely changes between words" in capsys.readouterr().err
    attention = log_of(run)[0]["attention"]
    assert attention["step_distance"] < 0.01 < attention["uniform_distance"]


def test_uniform_attention_does_not_warn(world, tmp_path, capsys):
    run = tmp_path / "run"
    assert fit.main(command(world, run, "--attention", "uniform", "--epochs", "1")) == 0
    assert "barely changes between words" not in capsys.readouterr().err
    assert log_of(run)[0]["attention"] == {"entropy": 1.0, "step_distance": 0.0, "uniform_distance": 0.0}


def test_no_attention_does_not_warn(world, tmp_path, capsys):
    run = tmp_path / "run"
    assert fit.main(command(world, run, "--attention", "none", "--epochs", "1")) == 0
    assert "barely changes between words" not in capsys.readouterr().err
    assert log_of(run)[0]["attention"] is None


def test_run_killed_before_first_save_restarts(world, whole, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(whole / "origin.json", run)
    shutil.copy(whole / "log.jsonl", run)
    assert fit.main(command(world, run)) == 0
    assert_same_run(run, whole)


def test_largest_seed_is_accepted(world, tmp_path):
    seed = str(2**63 - 1)
    assert fit.main(command(world, tmp_path / "run", "--seed", seed, "--epochs", "1")) == 0


def test_run_from_before_a_config_field_resumes(world, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    origin = json.loads((run / "origin.json").read_text())
    del origin["score_blur"], origin["mean"], origin["end_after_truncation"]
    (run / "origin.json").write_text(json.dumps(origin))
    assert fit.main(command(world, run, "--resume")) == 0
    assert_same_run(run, whole)
    assert fit.main(command(world, run, "--resume", "--score-blur", "1")) == 2


def test_run_from_before_endings_resumes_without(world, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as earlier:
        earlier.setattr("training.runs.initialization.learn_endings", lambda captions: {})
        assert fit.main(command(world, run, "--epochs", "1", "--frozen-epochs", "0")) == 0
    origin = json.loads((run / "origin.json").read_text())
    del origin["without_endings"], origin["endings"]
    (run / "origin.json").write_text(json.dumps(origin))
    assert fit.main(command(world, run, "--resume", "--frozen-epochs", "0")) == 0
    assert Captioner.load(run / "last").config.endings == 0


@pytest.mark.parametrize("is_old", [False, True])
def test_truncated_captions_are_taught_as_the_run_began(world, whole, tmp_path, monkeypatch, is_old):
    run, taught = tmp_path / "run", []
    shutil.copytree(whole, run)
    origin = json.loads((run / "origin.json").read_text())
    assert origin["end_after_truncation"] is False
    if is_old:
        del origin["end_after_truncation"]
        (run / "origin.json").write_text(json.dumps(origin))

    def watch(*arguments, end_after_truncation):
        taught.append(end_after_truncation)
        return PhotoDataset(*arguments, end_after_truncation=end_after_truncation)

    monkeypatch.setattr("training.runs.run.PhotoDataset", watch)
    assert fit.main(command(world, run, "--resume", "--epochs", "3")) == 0
    assert set(taught) == {is_old}


def test_state_with_other_parameter_order_is_refused(world, whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    state = torch.load(run / "state.pt", weights_only=True)
    moments = state["optimizer"]["state"]
    first, second = (number for number in list(moments)[:2])
    moments[first], moments[second] = moments[second], moments[first]
    torch.save(state, run / "state.pt")
    assert fit.main(command(world, run, "--resume", "--epochs", "3")) == 2
    assert "state.pt is not a state of this network" in one_line(capsys.readouterr().err)


def test_damaged_origin_is_named(world, whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "origin.json").write_text("[]")
    assert fit.main(command(world, run, "--resume")) == 2
    assert "origin.json is damaged" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("change", [["--batch-size", "4"], ["--seed", "9"], ["--min-count", "20"]])
def test_resume_with_other_data_is_refused(world, whole, tmp_path, capsys, change):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    assert fit.main(command(world, run, "--resume", *change)) == 2
    assert "choose another --output" in capsys.readouterr().err
