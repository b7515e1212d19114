"""How every command turns errors and Ctrl-C into a line and an exit status."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from support.processes import PATH, ROOT, START_SECONDS
from test_boundaries import COMMANDS, MODULES

from model.command import run_command
from model.errors import CheckpointError


def _raise(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize("status", [0, 1, 3])
def test_status_of_body_is_returned(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("fit", lambda: status) == status
    assert capsys.readouterr() == ("", "")


def test_no_status_means_success() -> None:
    assert run_command("fit", lambda: None) == 0


@pytest.mark.parametrize(
    "error", [CheckpointError("no checkpoint in a; train one."), FileNotFoundError(2, "No such file", "a")]
)
def test_expected_error_is_one_line_on_stderr(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("fit", lambda: _raise(error)) == 2
    assert capsys.readouterr() == ("", f"fit: {error}\n")


def test_ctrl_c_is_one_line_and_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("check", lambda: _raise(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "\ncheck: stopped\n")


def test_caller_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    status = run_command("fit", lambda: _raise(KeyboardInterrupt()), interrupted=lambda: "re-run to resume")
    assert (status, capsys.readouterr().err) == (130, "\nfit: re-run to resume\n")


def test_programming_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command("fit", lambda: 1 // 0)


BENCHMARKS = {name for name, path in MODULES.items() if path.parent.name == "benchmarks"}

# In place of torch: an import that takes long, and turns Ctrl-C into another error as those in C may.
SLOW_TORCH = """
import os, pathlib, time
pathlib.Path(os.environ["STARTED"]).touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("torch") from None
"""


@pytest.mark.parametrize("module", sorted(COMMANDS | BENCHMARKS))
def test_ctrl_c_during_imports_is_one_line_and_130(module: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(SLOW_TORCH)
    started = tmp_path / "started"
    environment = {"PATH": PATH, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**environment, "STARTED": str(started)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + START_SECONDS
        while not started.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=START_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, f"\n{module.removeprefix('training.')}: stopped\n")


@pytest.mark.parametrize("step", ["training.data.shapes.draw_world", "training.fit.pair_sources"])
def test_ctrl_c_in_a_benchmark_offers_no_resume(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In fine-tuning, whose run lies in a temporary folder."""
    monkeypatch.setattr("sys.argv", ["fine_tuning"])
    monkeypatch.setattr("training.data.shapes.draw_world", lambda *_: [])
    monkeypatch.setattr(step, lambda *_: _raise(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.fine_tuning", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().err) == (130, "\nbenchmarks.fine_tuning: stopped\n")
