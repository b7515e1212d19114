"""A service whose checkpoint is damaged or hostile does not start."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import PATH, ROOT, free_port
from test_checkpoint import DAMAGES, rewrite_manifest

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


def test_gunicorn_exits_on_damaged_checkpoint(checkpoint: Path) -> None:
    damage, message = DAMAGES["cut weights"]
    damage(checkpoint)
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "service/gunicorn_config.py",
        "service.app:create_app()",
    ]
    settings = {"CAPTION_CHECKPOINT": str(checkpoint), "CAPTION_BIND": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": PATH, **settings}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
