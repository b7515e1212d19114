"""run_command: how every command turns errors and Ctrl-C into a line and an exit status."""

from typing import NoReturn

import pytest

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
