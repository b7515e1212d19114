"""service.doctor: what each check finds, and how the command ends."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.processes import ROOT, free_port

from service import doctor


class Report(dict[str, tuple[str, str]]):
    """Verdict and finding of every check."""

    status: int


@pytest.fixture(autouse=True)
def _healthy_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings, a free port, enough memory and the required packages."""
    for name in [name for name in os.environ if name.startswith("CAPTION_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CAPTION_BIND", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("CAPTION_WORKERS", "1")
    monkeypatch.setattr(doctor, "_available_memory", lambda: 2_000_000_000)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# these\npytest\n")
    monkeypatch.setattr(doctor, "REQUIREMENTS", requirements)


Examine = Callable[[], Report]


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> Examine:
    """Runs the doctor with a tiny checkpoint."""

    def report() -> Report:
        found = Report()
        found.status = doctor.main(["--checkpoint", str(checkpoint)])
        *lines, last = capsys.readouterr().out.splitlines()
        for line in lines:
            found[line[9:20].strip()] = (line[:9].strip(), line[21:])
        problems = sum(verdict == "problem" for verdict, _ in found.values())
        assert last == {0: "all checks passed", 1: "1 problem"}.get(problems, f"{problems} problems")
        assert found.status == (1 if problems else 0)
        return found

    return report


def problem(report: Report, name: str) -> str:
    """The only problem, which must be this one."""
    assert [check for check, (verdict, _) in report.items() if verdict == "problem"] == [name], report
    return report[name][1]


def test_healthy_setup_passes_all_checks(examine: Examine) -> None:
    report = examine()
    assert report.status == 0
    assert {verdict for verdict, _ in report.values()} == {"ok"}
    assert len(report) == 10
    assert report["checkpoint"][1].startswith("tiny, ")
    assert "no scores" in report["checkpoint"][1]


def test_scores_of_checkpoint_are_reported(examine: Examine, checkpoint: Path) -> None:
    scores = {"bleu_4": 27.26, "cider": 71.8}
    (checkpoint / "scores.json").write_text(json.dumps(scores))
    assert "bleu_4 27.3, cider 71.8" in examine()["checkpoint"][1]


def test_invalid_settings_do_not_stop_other_checks(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_THREADS", "many")
    monkeypatch.setenv("CAPTION_QUEU", "3")
    monkeypatch.setattr(doctor, "_listen", lambda host, port: None)  # the default port may be taken here
    found = problem(examine(), "settings")
    assert "CAPTION_THREADS" in found
    assert "CAPTION_QUEUE" in found


def test_setting_values_are_not_shown(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_API_KEY", "hush")
    report = examine()
    assert "CAPTION_API_KEY" in report["settings"][1]
    assert "hush" not in str(report)


def test_missing_or_other_package_version_is_named(examine: Examine) -> None:
    doctor.REQUIREMENTS.write_text("pytest==0.1\nno-such-package==1\nflask\n")
    found = problem(examine(), "packages")
    assert "pytest is " in found
    assert "no-such-package is missing" in found
    assert "flask" not in found
    assert "pip install" in found


def test_more_processes_than_cores_are_reported(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.config.usable_cores", lambda: 2)
    monkeypatch.setattr(doctor, "_available_memory", lambda: 10**12)
    monkeypatch.setenv("CAPTION_WORKERS", "3")
    assert "CAPTION_WORKERS is 3" in problem(examine(), "processes")


@pytest.mark.parametrize(("pixels", "is_enough"), [("50000000", False), ("1000000", True)])
def test_memory_must_fit_largest_photos(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, pixels: str, is_enough: bool
) -> None:
    monkeypatch.setattr(doctor, "_available_memory", lambda: 600_000_000)
    monkeypatch.setenv("CAPTION_MAX_PIXELS", pixels)
    report = examine()
    if is_enough:
        assert report.status == 0
    else:
        assert "CAPTION_WORKERS" in problem(report, "memory")


def test_memory_of_this_machine_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < doctor._available_memory() < 10**15


def test_container_page_cache_counts_as_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    before = doctor._available_memory()
    (tmp_path / "memory.max").write_text("9000000\n")
    (tmp_path / "memory.current").write_text("8500000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 7000000\nactive_file 1000000\n")
    assert doctor._available_memory() == 7_500_000 < before
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor._available_memory() > 7_500_000


def test_port_in_use_is_reported(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(doctor, "TIMEOUT", 0.2)  # this one never answers
        monkeypatch.setenv("CAPTION_BIND", f"127.0.0.1:{other.getsockname()[1]}")
        assert "CAPTION_BIND" in problem(examine(), "address")


class Healthy(BaseHTTPRequestHandler):
    """Answers as the service does."""

    def do_GET(self) -> None:  # named by the library
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def test_port_used_by_the_service_is_fine(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 60)
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        serving = Thread(target=server.serve_forever, daemon=True)
        serving.start()
        monkeypatch.setenv("CAPTION_BIND", f"127.0.0.1:{server.server_port}")
        report = examine()
        server.shutdown()
        serving.join()
    assert report.status == 0
    assert "a running captioning service" in report["address"][1]


def test_socket_in_missing_folder_is_reported(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_BIND", "unix:/no/such/folder/caption.sock")
    assert "/no/such/folder" in problem(examine(), "address")


def test_unreachable_redis_is_reported(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_RATE_LIMIT", "60/minute")
    assert "per process" in examine()["rate limit"][1]
    monkeypatch.setenv("CAPTION_RATE_LIMIT_STORAGE", f"redis://127.0.0.1:{free_port()}")
    assert "CAPTION_RATE_LIMIT_STORAGE" in problem(examine(), "rate limit")


def test_damaged_checkpoint_is_reported(examine: Examine, checkpoint: Path) -> None:
    weights = checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    report = examine()
    assert {name for name, (verdict, _) in report.items() if verdict == "problem"} == {
        "checkpoint",
        "caption",
    }
    assert "weights.safetensors" in report["checkpoint"][1]


def test_checkpoint_comes_from_settings_or_argument(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    monkeypatch.setenv("CAPTION_CHECKPOINT", "/nowhere/at/all")
    assert doctor.main([]) == 1
    assert "/nowhere/at/all" in capsys.readouterr().out
    assert doctor.main(["--checkpoint", str(checkpoint)]) == 0


def test_crashing_check_does_not_stop_the_others(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_available_memory", lambda: 1 // 0)
    assert "ZeroDivisionError" in problem(examine(), "memory")


def test_ctrl_c_is_one_line_and_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "_available_memory", interrupt)
    assert doctor.main([]) == 130
    assert capsys.readouterr().err == "\nservice.doctor: stopped\n"


def test_missing_torch_is_a_problem_not_a_traceback() -> None:
    code = "import sys; sys.modules['torch'] = None; from service import doctor; sys.exit(doctor.main([]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "torch" in done.stdout
    assert done.stderr == ""


def test_help_shows_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        doctor.main(["--help"])
    assert ending.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--checkpoint", "CAPTION_BIND=", "exit status"):
        assert word in shown
