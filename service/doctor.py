"""Checks that the service can run here, and says how to fix what is wrong: ``python -m service.doctor``.

Checks import what they need themselves, so that a missing package is a failed check and not a traceback.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model import Captioner
    from service.config import ServiceConfig

PASSED, PROBLEMS, INTERRUPTED = 0, 1, 130  # exit statuses

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
MIN_PYTHON = (3, 11)
MEGABYTE = 1_000_000
# Bytes, measured with the shipped checkpoint: shared by all processes, of each process, and per pixel of
# the photo in it (50 megapixels took a process from 200 to 620 MB).
SHARED_MEMORY, PROCESS_MEMORY, PIXEL_MEMORY = 250 * MEGABYTE, 200 * MEGABYTE, 8.4
MIN_FREE = 16 * MEGABYTE  # metrics and heartbeats take 0.2 MB per process, which a full folder would kill
TIMEOUT = 2  # seconds, of connections to this service and to Redis
CGROUP = Path("/sys/fs/cgroup")  # version 2

HELP = """\
Reads the CAPTION_* variables as the service does, so run it with the user and environment of the service:

  CAPTION_BIND=0.0.0.0:8000 python -m service.doctor --checkpoint runs/mine

Prints one line per check, "ok" or "problem"; a problem comes with its fix. Changes nothing.

exit status: 0 all checks passed, 1 problems found, 130 interrupted
"""


class CheckFailed(Exception):
    """A failed check; the message says what is wrong and how to fix it."""


class Doctor:
    """The checks, in the order in which to fix what they find; later ones use results of earlier ones.

    Each returns what it found, or raises ``CheckFailed``.
    """

    def __init__(self, checkpoint: str | None) -> None:
        """``checkpoint``, unless None, is checked instead of the one in the settings."""
        self._checkpoint = checkpoint
        self._settings: ServiceConfig | None = None
        self._captioner: Captioner | None = None
        self.checks: tuple[Callable[[], str], ...] = (
            *(self.python, self.packages, self.settings, self.processes, self.memory),
            *(self.folder, self.address, self.rate_limit, self.checkpoint, self.caption),
        )

    def python(self) -> str:
        """The interpreter is new enough."""
        version = ".".join(map(str, sys.version_info[:3]))
        if sys.version_info < MIN_PYTHON:
            raise CheckFailed(f"Python {version} is too old; Python 3.11 or newer is required.")
        return version

    def packages(self) -> str:
        """The installed packages are those of requirements.txt."""
        from packaging.requirements import Requirement

        if not REQUIREMENTS.exists():
            return "not checked: there is no requirements.txt"
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
        required = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
        wrong = []
        for requirement in required:
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                wrong.append(f"{requirement.name} is missing")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        if wrong:
            raise CheckFailed(f"{', '.join(wrong)}; run: {sys.executable} -m pip install -r {REQUIREMENTS}")
        return f"{len(required)} packages as in {REQUIREMENTS.name}"

    def settings(self) -> str:
        """The environment variables are valid."""
        from service.config import PREFIX, ServiceConfig
        from service.errors import ConfigError

        try:
            self._settings = ServiceConfig.from_env()
        except ConfigError as error:
            raise CheckFailed(f"{error}".replace("\n", " ")) from None
        given = sorted(name for name in os.environ if name.startswith(PREFIX))
        return f"from the environment: {', '.join(given)}" if given else "all defaults"

    def processes(self) -> str:
        """There is a core for every process."""
        from service.config import usable_cores

        config, cores = self._config(), usable_cores()
        if config.processes > cores and config.device == "cpu":
            raise CheckFailed(
                f"CAPTION_WORKERS is {config.processes}, but only {cores} cores are available; "
                f"set it to {cores} or fewer, because processes that share a core slow each other down."
            )
        return f"{config.processes}, with one torch thread each, on {cores} cores"

    def memory(self) -> str:
        """There is enough memory for the largest photos in all processes."""
        config, available = self._config(), _available_memory()
        per_process = PROCESS_MEMORY + round(config.max_pixels * PIXEL_MEMORY)
        needed = SHARED_MEMORY + config.processes * per_process
        if available < needed:
            raise CheckFailed(
                f"{available // MEGABYTE} MB of memory are available, but {config.processes} processes need "
                f"up to {needed // MEGABYTE} MB with photos of {config.max_pixels / 1e6:.0f} megapixels; "
                "lower CAPTION_WORKERS or CAPTION_MAX_PIXELS."
            )
        return f"{available // MEGABYTE} MB available, up to {needed // MEGABYTE} MB needed"

    def folder(self) -> str:
        """The folder for metrics and heartbeats can be written."""
        memory = Path("/dev/shm")
        folder = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        try:
            with tempfile.TemporaryFile(dir=folder):
                free = shutil.disk_usage(folder).free
        except OSError as error:
            raise CheckFailed(
                f"{folder} cannot be written ({error}); set TMPDIR to a writable folder."
            ) from None
        if free < MIN_FREE:
            raise CheckFailed(
                f"{folder} has {free // MEGABYTE} MB left; {MIN_FREE // MEGABYTE} MB are required."
            )
        return f"{folder} can be written"

    def address(self) -> str:
        """The address is free, or this service is already running there."""
        bind = self._config().bind
        if bind.startswith("unix:"):
            folder = Path(bind.removeprefix("unix:")).parent
            if not os.access(folder, os.W_OK):
                raise CheckFailed(
                    f"{folder} cannot be written; set CAPTION_BIND to a socket in a writable folder."
                )
            return f"{bind} can be created"
        host, _, port = bind.rpartition(":")
        try:
            _listen(host.strip("[]"), int(port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _is_our_service(bind):
                return f"{bind} is in use by a running captioning service"
            raise CheckFailed(
                f"Cannot listen on {bind} ({error.strerror}); set CAPTION_BIND to a free port and an address "
                "of this computer."
            ) from None
        return f"{bind} is free"

    def rate_limit(self) -> str:
        """The storage of the rate limit responds."""
        from limits.storage import storage_from_string

        config = self._config()
        if not config.rate_limit:
            return "none"
        if config.rate_limit_storage.startswith("memory"):
            return f"{config.rate_limit}, counted per process"
        timeouts = {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}
        if not storage_from_string(config.rate_limit_storage, **timeouts).check():
            raise CheckFailed(
                "Redis at CAPTION_RATE_LIMIT_STORAGE does not respond; start it, or correct the URL."
            )
        return f"{config.rate_limit}, counted in Redis"

    def checkpoint(self) -> str:
        """The checkpoint can be loaded."""
        from model import Captioner, CaptioningError

        config = self._config()
        try:
            self._captioner = Captioner.load(self._checkpoint or config.checkpoint, config.device)
        except CaptioningError as error:
            raise CheckFailed(str(error)) from None
        info = self._captioner.info
        scores = [f"{name} {info.scores[name]:.1f}" for name in ("bleu_4", "cider") if name in info.scores]
        return f"{info.name}, {info.sha256[:12]}, {', '.join(scores) or 'no scores'}"

    def caption(self) -> str:
        """An image gets a caption and a contact sheet."""
        import torch
        from PIL import Image, ImageDraw

        from model import contact_sheet, encode_png

        if self._captioner is None:
            raise CheckFailed("Not tested, because the checkpoint could not be loaded.")
        torch.set_num_threads(1)  # as in the service
        image = Image.new("RGB", (320, 240), "skyblue")
        ImageDraw.Draw(image).rectangle((60, 120, 260, 240), fill="green")
        start = time.perf_counter()
        [[caption]] = self._captioner.caption([image])
        captioned = time.perf_counter()
        encode_png(contact_sheet(image, caption))
        drawn = time.perf_counter()
        words = len(caption.text.split())
        return f"{words} words in {captioned - start:.2f} s, contact sheet in {drawn - captioned:.2f} s"

    def _config(self) -> ServiceConfig:
        """The settings; the defaults if they are invalid."""
        from service.config import ServiceConfig

        return self._settings or ServiceConfig()


def _available_memory() -> int:
    """Bytes of memory available on this computer and within the limit of its container."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [available] = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return available
    # Cached files count as used, but their memory is freed on demand.
    return min(available, limit - used + int(stat.get("inactive_file", 0)))


def _listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        listener.bind((host, port))
        listener.listen()


def _is_our_service(bind: str) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://{bind}/healthz", timeout=TIMEOUT) as response:
            return bool(json.load(response) == {"status": "ok"})
    except (OSError, ValueError):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (those of the process if None); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m service.doctor",
        description="Check that the captioning service can run here.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="check this folder instead of CAPTION_CHECKPOINT")
    doctor = Doctor(parser.parse_args(arguments).checkpoint)
    try:
        return _run(doctor)
    except KeyboardInterrupt:  # run_command would need torch, which may be what is missing
        print("\nservice.doctor: stopped", file=sys.stderr)
        return INTERRUPTED


def _run(doctor: Doctor) -> int:
    problems = 0
    for check in doctor.checks:
        name = check.__name__.replace("_", " ")
        try:
            verdict, finding = "ok", check()
        except CheckFailed as error:
            verdict, finding = "problem", str(error)
        except Exception as error:  # whatever else a check raises is a problem too; the next ones still run
            verdict, finding = "problem", f"{type(error).__name__}: {error}"
        problems += verdict == "problem"
        print(f"{verdict:8} {name:11} {finding}", flush=True)
    print(f"{problems} problems" if problems > 1 else "1 problem" if problems else "all checks passed")
    return PROBLEMS if problems else PASSED


if __name__ == "__main__":
    sys.exit(main())
