"""Runs the service, as it ships, under gunicorn in a process of its own."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.client import get

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
STOP_SECONDS = 60

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec")
_READ_ONLY = "mount -o remount,bind,ro /"


def full_disks(*kept: Path | str) -> tuple[str, ...]:
    """A command to put before another: file systems are read-only, and folders for temporary files full.

    ``kept`` are folders that stay visible, read-only, even if they are in /tmp.
    """
    script = f"""
        {_READ_ONLY}
        mount --rbind /tmp /mnt
        for folder in /tmp /var/tmp; do
            mount -t tmpfs -o size=4k tmpfs $folder
            head -c 4096 /dev/zero > $folder/all
        done
        for path in {shlex.join(map(str, kept))}; do
            case $path in /tmp/*)
                mkdir -p "$path"
                mount --bind "/mnt${{path#/tmp}}" "$path"
                mount -o remount,bind,ro "$path"
            esac
        done
        cd {shlex.quote(str(ROOT))}
        exec "$@"
    """
    return (*_NAMESPACE, script, "sh")


# By what they break, commands to run the service in; most need permission to mount in a namespace.
BROKEN_DISKS = {
    "full_log": ("sh", "-ec", 'exec "$@" 2> /dev/full', "sh"),
    "read_only": (*_NAMESPACE, f'{_READ_ONLY}; exec "$@"', "sh"),
    "full": full_disks(ROOT, sys.prefix, sys.base_prefix),
}


class NotReadyError(Exception):
    """The service did not become ready; the message is its log."""


@dataclass(frozen=True)
class Service:
    """A running gunicorn and its workers."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path  # its output

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def stop(self) -> int:
        """Send SIGTERM, as systemd and Docker do, and wait; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def metric(self, name: str) -> float:
        """A metric from GET /metrics, summed over its labels."""
        lines = get(self.port, "/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition("{")[0].split()[:1] == [name])

    def connections(self, worker: int) -> int:
        """The number of open connections of a worker."""
        return sum(
            connection.laddr.port == self.port and connection.status == psutil.CONN_ESTABLISHED
            for connection in psutil.Process(worker).net_connections("tcp")
        )

    def cpu_seconds(self) -> float:
        """The CPU time of all workers that are running."""
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
    """A service that is ready, and is stopped when the block ends.

    Args:
        settings: ``CAPTION_*`` variables in lower case and without their prefix, and other environment
            variables in upper case. Only PATH and HOME are inherited.
        application: WSGI application.
        options: further options of gunicorn.
        within: command to run it in, such as one of ``BROKEN_DISKS``.

    Raises:
        NotReadyError: it does not become ready.
    """
    port = _free_port()
    # Named by its path: in a namespace or as another user, PATH may lack the virtual environment.
    command = [sys.executable, "-m", "gunicorn", "-c", "service/gunicorn_config.py", *options, application]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        environment = _environment({"bind": f"127.0.0.1:{port}", **(settings or {})})
        with log.open("wb") as out:
            process = subprocess.Popen([*within, *command], cwd=ROOT, env=environment, stdout=out, stderr=out)
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
                    process.wait()


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    # Nothing else: importing torch sets variables that a service would not find elsewhere.
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    given = {name if name.isupper() else f"CAPTION_{name.upper()}": str(settings[name]) for name in settings}
    return kept | given


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_ready(service: Service) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and service.process.poll() is None:
        if get(service.port, "/readyz").status == 200:
            return
        time.sleep(0.1)
    raise NotReadyError(f"The service did not become ready. {service.log.read_text(errors='replace')}")
