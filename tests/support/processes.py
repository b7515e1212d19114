"""Subprocesses on free ports, and requests to them."""

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

ROOT = Path(__file__).parents[2]
# With what the virtual environment of these tests has installed, even if it is not activated.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
START_SECONDS = 120  # loading torch may take long on a busy machine


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The body of an error."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        problem: dict[str, Any] = json.loads(self.body)
        assert set(problem) == {"type", "title", "status", "detail", "request_id"}
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers["X-Request-Id"]
        return problem


def ask(port: int, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
    """Send a request to ``port``; headers with ``_`` for ``-``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, names)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())  # type: ignore[arg-type]
    finally:
        connection.close()


def ask_for_caption(port: int, photo: bytes) -> Answer:
    """Send a photo as a browser would."""
    image = FileStorage(io.BytesIO(photo), "a.jpg", "image")
    boundary, body = encode_multipart({"image": image, "overlays": "none"})
    kind = f"multipart/form-data; boundary={boundary}"
    return ask(port, "/v1/captions", "POST", body, Content_Type=kind)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Block the inference of services whose FAKE_CAPTION_HOLD is ``file``."""
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A subprocess with exactly ``environment`` and PATH, stopped at the end of the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=cwd, env={"PATH": PATH, **(environment or {})}, stdout=stream, stderr=stream
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server responds with 200."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if ask(port, path).status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    pytest.fail(f"Nothing answers on {path}:\n{log.read_text(errors='replace')}")
