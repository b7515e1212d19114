"""The clients shown in the documentation, run against the service."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from support.fake_captioner import FakeCaptioner
from werkzeug.serving import make_server

from service.app import create_app
from service.config import ServiceConfig

ROOT = Path(__file__).parents[1]
SHOWN = "http://127.0.0.1:8000"  # where the documents have the service
TEXT = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/api.md"))
CURLS = sorted(set(re.findall(r"^    (curl .+)$", TEXT, re.MULTILINE)))


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of a service with a captioner that needs no weights."""
    server = make_server("127.0.0.1", 0, create_app(ServiceConfig(), FakeCaptioner()), threaded=True)
    serving = Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    serving.join()
    server.server_close()


def run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)


def test_client_prints_caption_and_attention_peaks(service: str) -> None:
    done = run([sys.executable, "examples/client.py", "examples/cat.jpg", service])
    assert done.returncode == 0, done.stderr
    caption, *words = done.stdout.decode().splitlines()
    assert caption.split() == [line.split()[0] for line in words]
    assert words[1].endswith("attention peaks at row 0, column 1")


def test_client_prints_error_detail(service: str, tmp_path: Path) -> None:
    text = tmp_path / "a.jpg"
    text.write_text("no picture")
    done = run([sys.executable, "examples/client.py", str(text), service])
    assert done.returncode == 1
    assert done.stderr.decode().strip().endswith("use JPEG, PNG, WebP, GIF or BMP.")


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
@pytest.mark.parametrize("command", CURLS)
def test_documented_curl_command_works(service: str, command: str) -> None:
    shown = shlex.split(command.split(" > ")[0].replace(SHOWN, service))
    done = run([*shown, "--silent", "--show-error", "--fail"])
    assert done.returncode == 0, done.stderr
    if " > " in command:
        kind = Path(command.split(" > ")[1]).suffix
        assert done.stdout.startswith({".png": b"\x89PNG", ".gif": b"GIF8"}[kind])
    else:
        assert {"captions", "results", "predictions"} & set(json.loads(done.stdout))


def test_every_captioning_route_has_a_curl_example() -> None:
    for route in ("/v1/captions", "/v1/captions:batch", "/v1/overlays", "/model/predict"):
        assert any(f"{SHOWN}{route}" in command for command in CURLS), route
