"""The service as a process of its own, to be measured or mistreated: gunicorn as it ships."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.client import get

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
STOP_SECONDS = 60


class NotReadyError(Exception):
    """The service does not caption; the message has what it said."""


class Service:
    """A running gunicorn and its workers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        """``log`` has what it wrote to standard error."""
        self.process = process
        self.port = port
        self.log = log

    def workers(self) -> list[int]:
        """The numbers of the processes that caption."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def stop(self) -> int:
        """Ask it to finish and stop, as systemd and Docker do; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def metric(self, name: str) -> float:
        """The sum over the labels of a metric, as GET /metrics has it."""
        lines = get(self.port, "/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition("{")[0].split()[:1] == [name])

    def connections(self, worker: int) -> int:
        """How many clients are connected to a worker."""
        return sum(
            connection.laddr.port == self.port and connection.status == psutil.CONN_ESTABLISHED
            for connection in psutil.Process(worker).net_connections("tcp")
        )

    def cpu_seconds(self) -> float:
        """What the workers that are alive have computed so far."""
        times = [psutil.Process(worker).cpu_times() for worker in self.workers()]
        return sum(each.user + each.system for each in times)


@contextmanager
def serving(
    settings: Mapping[str, Any] | None = None,
    *,
    application: str = "service.app:create_app()",
    options: Sequence[str] = (),
    within: Sequence[str] = (),
) -> Iterator[Service]:
    """A service that is ready, and is stopped in the end.

    Args:
        settings: ``CAPTION_*`` variables without their prefix, in lower case, and what else is to be in the
            environment, in upper case. Of the caller's variables only PATH and HOME are passed on.
        application: what gunicorn is told to serve.
        options: further ones of gunicorn.
        within: a command to run it in.

    Raises:
        NotReadyError: it does not caption.
    """
    port = _free_port()
    # The interpreter is named, for a namespace or another user may have no virtual environment in its PATH.
    command = [sys.executable, "-m", "gunicorn", "-c", "service/gunicorn_config.py", *options, application]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        environment = _environment({"bind": f"127.0.0.1:{port}", **(settings or {})})
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*within, *command], cwd=ROOT, env=environment, stdout=stream, stderr=stream
            )
        service = Service(process, port, log)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            if process.poll() is None:
                try:
                    service.stop()
                except subprocess.TimeoutExpired:
                    process.kill()


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    # Nothing else of ours: loading torch leaves variables behind that a service would not find elsewhere.
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    given = {name if name.isupper() else f"CAPTION_{name.upper()}": str(settings[name]) for name in settings}
    return kept | given


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(service: Service) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and service.process.poll() is None:
        if get(service.port, "/readyz").status == 200:
            return
        time.sleep(0.1)
    raise NotReadyError(f"The service does not get ready. {service.log.read_text(errors='replace')}")
