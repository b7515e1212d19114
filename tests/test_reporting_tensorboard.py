"""Event files for TensorBoard, also of resumed runs."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from training.reporting import tensorboard as scalars
from training.reporting.tensorboard import Scalars

LINE = {
    "epoch": 1,
    "encoder": "frozen",
    "cross_entropy": 3.5,
    "doubly_stochastic": 0.25,
    "cider": 12.5,
    "bleu_4": 4.5,
    "distinct_captions": 7,
    "attention": {"entropy": 0.75, "step_distance": 0.5},
    "train_seconds": 9.0,
}


@pytest.fixture(autouse=True)
def _one_second_later(monkeypatch):
    """Files are read in the order of the seconds in their names, and these tests are quicker than that."""
    begun: list[int] = []

    def later() -> float:
        begun.append(1)
        return time.time() + len(begun)

    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=later))


def curves(run: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """Every curve as TensorBoard reads it: steps and values."""
    found = EventAccumulator(str(run / "tensorboard" / name))
    found.Reload()
    return {tag: [(p.step, p.value) for p in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_scalars_round_trip(tmp_path):
    written = Scalars(tmp_path, step=0, epoch=0)
    for step in (1, 2):
        written.step(step, {"cross_entropy": 4.0 / step, "learning_rate": 0.5})
    written.epoch(LINE)
    written.close()
    assert curves(tmp_path, "steps") == {
        "step/cross_entropy": [(1, 4.0), (2, 2.0)],
        "step/learning_rate": [(1, 0.5), (2, 0.5)],
    }
    assert curves(tmp_path, "epochs") == {
        "train/cross_entropy": [(1, 3.5)],
        "train/doubly_stochastic": [(1, 0.25)],
        "val/cider": [(1, 12.5)],
        "val/bleu_4": [(1, 4.5)],
        "val/distinct_captions": [(1, 7.0)],
        "attention/entropy": [(1, 0.75)],
        "attention/step_distance": [(1, 0.5)],
    }


def test_missing_values_are_not_written(tmp_path):
    written = Scalars(tmp_path, step=0, epoch=0)
    written.epoch(LINE | {"cider": None, "bleu_4": None, "distinct_captions": None, "attention": None})
    written.epoch(LINE | {"epoch": 2, "cross_entropy": None, "reward": 0.5})
    written.close()
    found = curves(tmp_path, "epochs")
    assert found["val/cider"] == [(2, 12.5)]
    assert found["train/cross_entropy"] == [(1, 3.5)]
    assert found["train/reward"] == [(2, 0.5)]


@pytest.mark.parametrize(("kept", "epochs"), [(0, 0), (3, 0), (4, 1), (5, 2), (6, 2)])
def test_resumed_run_writes_every_point_once(tmp_path, kept, epochs):
    """``kept`` steps and ``epochs`` are in the state that the run resumes from."""
    died = Scalars(tmp_path, step=0, epoch=0)
    for step in range(1, 7):
        died.step(step, {"cross_entropy": 1.0})
    for epoch in (1, 2):
        died.epoch(LINE | {"epoch": epoch, "cider": 1.0})
    died.close()
    resumed = Scalars(tmp_path, step=kept, epoch=epochs)
    for step in range(kept + 1, 9):
        resumed.step(step, {"cross_entropy": 2.0})
    for epoch in range(epochs + 1, 4):
        resumed.epoch(LINE | {"epoch": epoch, "cider": 2.0})
    resumed.close()
    expected = [(step, 1.0 if step <= kept else 2.0) for step in range(1, 9)]
    assert curves(tmp_path, "steps")["step/cross_entropy"] == expected
    expected = [(epoch, 1.0 if epoch <= epochs else 2.0) for epoch in range(1, 4)]
    assert curves(tmp_path, "epochs")["val/cider"] == expected


def test_epoch_is_visible_during_the_run(tmp_path):
    written = Scalars(tmp_path, step=0, epoch=0)
    written.epoch(LINE)
    assert curves(tmp_path, "epochs")["val/cider"] == [(1, 12.5)]
    written.close()


def test_missing_tensorboard_is_one_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    written = Scalars(tmp_path, step=0, epoch=0)
    written.step(1, {"cross_entropy": 4.0})
    written.epoch(LINE)
    written.close()
    assert list(tmp_path.iterdir()) == []
    (said,) = capsys.readouterr().err.splitlines()
    assert "python -m pip install tensorboard==" in said


def test_warning_names_the_tested_version():
    pinned = (Path(__file__).parents[1] / "requirements-dev.txt").read_text(encoding="utf-8")
    (version,) = [line for line in pinned.splitlines() if line.startswith("tensorboard==")]
    assert version in scalars.MISSING


def test_unwritable_folder_raises_oserror(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(OSError, match="tensorboard"):
        Scalars(tmp_path, step=0, epoch=0)
