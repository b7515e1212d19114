"""Steps split over processes or over time equal single steps; a dead process ends the run."""

import json
import multiprocessing
import sys
import time
from multiprocessing.context import ForkProcess
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.optim.optimizer import register_optimizer_step_post_hook

from training import fit
from training.data.shapes import write_world

ROOT = Path(__file__).parents[1]
LOSSES = ("cross_entropy", "doubly_stochastic", "cider", "bleu_4")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 20, size=32)
    return folder


def command(world: Path, run: Path, *more: str) -> list[str]:
    """16 of the 20 photos are for training: steps of 8, which can be split evenly."""
    return [
        *("--captions", str(world / "captions.json"), "--images", str(world / "images")),
        *("--output", str(run), "--encoder", "tiny_cnn", "--encoder-weights", "none", "--image-size", "32"),
        *("--epochs", "2", "--frozen-epochs", "1", "--batch-size", "8", "--min-count", "1"),
        *("--warmup-steps", "1", "--workers", "0", "--device", "cpu", "--dropout", "0"),
        *("--annotation-dim", "24", "--attention-dim", "25", "--embedding-dim", "26", "--hidden-dim", "27"),
        *more,
    ]


def launch(arguments: list[str], monitor_seconds: float = 0.1) -> ForkProcess:
    """Start torchrun's agent with two processes, which are forked: none has to import torch again."""
    process = multiprocessing.get_context("fork").Process(target=_torchrun, args=(arguments, monitor_seconds))
    process.start()
    return process


def _torchrun(arguments: list[str], monitor_seconds: float) -> None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=monitor_seconds,
        start_method="fork",
    )
    try:
        elastic_launch(config, _fit)(arguments)
    except ChildFailedError as error:
        sys.exit(str(error))


def _fit(arguments: list[str]) -> None:
    if status := fit.main(arguments):
        sys.exit(status)


def log_of(run: Path) -> list[dict[str, object]]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{name: line[name] for name in LOSSES} for line in lines]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "state.pt", weights_only=True)["network"]


def assert_trained_alike(run: Path, whole: Path) -> None:
    """The order in which floats are added up differs, and nothing else."""
    assert log_of(run) == [pytest.approx(line, abs=2e-4) for line in log_of(whole)]
    expected = weights_of(whole)
    for name, value in weights_of(run).items():
        assert torch.allclose(value, expected[name], atol=1e-4), name


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert fit.main(command(world, run)) == 0
    return run


def test_two_processes_train_as_one(world, whole, tmp_path, capfd):
    run = tmp_path / "run"
    process = launch(command(world, run))
    process.join(300)
    said = capfd.readouterr().err
    assert process.exitcode == 0, said
    assert_trained_alike(run, whole)
    assert said.count("epoch 1: loss") == 1  # one process speaks and writes
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.usefixtures("without_reports")
@pytest.mark.parametrize("parts", [2, 4])
def test_gradient_accumulation_equals_one_step(world, whole, tmp_path, parts):
    assert fit.main(command(world, tmp_path / "run", "--accumulate", str(parts))) == 0
    assert_trained_alike(tmp_path / "run", whole)


def test_more_parts_than_photos_are_refused(world, tmp_path, capsys):
    assert fit.main(command(world, tmp_path / "run", "--accumulate", "9")) == 2
    assert "--accumulate 9" in capsys.readouterr().err
    assert not (tmp_path / "run" / "origin.json").exists()


def test_killed_process_ends_resumable_run(world, whole, tmp_path, capfd):
    run = tmp_path / "run"
    arguments = command(world, run, "--save-minutes", "0")
    # torchrun itself does not notice, and so cannot end the other process before that does.
    process = launch([*arguments, "--epochs", "500"], monitor_seconds=1000)
    try:
        deadline = time.monotonic() + 300
        while not (run / "state.pt").exists():
            assert time.monotonic() < deadline
            assert process.is_alive()
            time.sleep(0.05)
        other, killed = psutil.Process(process.pid).children()
        killed.kill()
        while other.is_running() and other.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.terminate()  # of 500 epochs nothing may be left beside the other tests
        process.join(60)
    said = capfd.readouterr().err
    assert "another process exited" in said
    assert 'Traceback (most recent call last):\n  File "' + str(ROOT) not in said
    assert fit.main([*arguments, "--resume"]) == 0  # with one process, which it need not have been


def test_nonfinite_loss_names_photos(world, tmp_path, capsys, monkeypatch):
    def spoil(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(float("nan"))

    handle = register_optimizer_step_post_hook(spoil)
    try:
        assert fit.main(command(world, tmp_path / "run")) == 2
    finally:
        handle.remove()
    said = capsys.readouterr().err
    assert "at step 1" in said
    names = [path.name for path in (world / "images").iterdir()]
    assert sum(name in said for name in names) == 8
