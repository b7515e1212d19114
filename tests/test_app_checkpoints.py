"""The service exits if its checkpoint is damaged or hostile."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import PATH, ROOT, ask, free_port, running, wait_for
from test_checkpoint import DAMAGES, rewrite_manifest

from model import Captioner
from model.checkpoint import save_checkpoint
from service.app import CANNOT_START, create_app
from service.config import ServiceConfig


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which the service does not start."""
    with pytest.raises(SystemExit) as ending:
        create_app(ServiceConfig(checkpoint=str(checkpoint)))
    assert ending.value.code == CANNOT_START != 0
    [sentence] = capsys.readouterr().err.splitlines()
    return sentence


def test_damaged_checkpoint_stops_the_service(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """test_checkpoint has every kind of damage."""
    damage, _ = DAMAGES["another attention"]
    damage(checkpoint)
    assert refused(checkpoint, capsys).startswith("The service cannot start. ")


@pytest.mark.parametrize("file", ["weights.safetensors", "config.json", "vocabulary.json", "manifest.json"])
def test_pickle_in_checkpoint_is_never_loaded(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str
) -> None:
    trace = tmp_path / "trace"
    (checkpoint / file).write_bytes(pickle.dumps(Hostile(trace)))
    if file != "manifest.json":
        rewrite_manifest(checkpoint)
    assert refused(checkpoint, capsys)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))  # it would have, if it had been run
    assert trace.exists()


def test_wrong_checksum_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = checkpoint / "manifest.json"
    text = manifest.read_text()
    digit = text.index(":", text.index("weights.safetensors")) + 4
    manifest.write_text(text[:digit] + ("0" if text[digit] != "0" else "1") + text[digit + 1 :])
    assert "damaged" in refused(checkpoint, capsys)


COMMAND = [sys.executable, "-m", "gunicorn", "-c", "service/gunicorn_config.py", "service.app:create_app()"]


def test_gunicorn_exits_on_damaged_checkpoint(checkpoint: Path) -> None:
    damage, message = DAMAGES["cut weights"]
    damage(checkpoint)
    settings = {"CAPTION_CHECKPOINT": str(checkpoint), "CAPTION_BIND": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(
        COMMAND, cwd=ROOT, env={"PATH": PATH, **settings}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_sighup_reloads_the_checkpoint(checkpoint: Path, captioner: Captioner, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    settings = {"CAPTION_CHECKPOINT": str(checkpoint), "CAPTION_BIND": f"127.0.0.1:{port}"}
    with running(COMMAND, log, {**settings, "CAPTION_WORKERS": "1"}) as master:
        wait_for(port, "/readyz", master, log)
        assert served_name(port) == "tiny"
        info = replace(captioner.info, name="replaced")
        save_checkpoint(checkpoint, captioner.network, captioner.config, captioner.vocabulary, info)
        master.send_signal(signal.SIGHUP)
        wait_until(lambda: served_name(port) == "replaced")
        (checkpoint / "manifest.json").write_text("damaged")
        master.send_signal(signal.SIGHUP)
        wait_until(lambda: "Reload failed" in log.read_text())
        wait_until(lambda: ask(port, "/readyz").status == 200)
        assert served_name(port) == "replaced"


def served_name(port: int) -> str:
    return str(json.loads(ask(port, "/v1/model").body)["name"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
