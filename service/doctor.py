"""Looks whether the service can run here, and says what would be right: ``python -m service.doctor``.

What a broken installation lacks is imported inside the checks, so that they can say so.
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
import urllib.request
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model import Captioner
    from service.config import ServiceConfig

ALL_WELL, SOME_PROBLEM = 0, 1  # exit statuses

REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
LEAST_PYTHON = (3, 11)
MEGABYTE = 1_000_000
# Bytes, of the shipped captioner; what the processes share is counted once. A photo of 50 megapixels
# took a process from 200 to 620 MB.
SHARED_MEMORY, PROCESS_MEMORY, PIXEL_MEMORY = 250 * MEGABYTE, 200 * MEGABYTE, 8.4
LEAST_FOLDER = 16 * MEGABYTE  # figures and heartbeats take 0.2 MB a process; a full folder would kill it
ANSWER_SECONDS = 2
CONTAINER = Path("/sys/fs/cgroup")  # version 2

HELP = """\
It reads the CAPTION_* variables as the service does, so run it where and how the service is to run:

  CAPTION_BIND=0.0.0.0:8000 python -m service.doctor --checkpoint runs/mine

One line for every check, ok or problem. A problem says what would be right. Nothing is changed.

exit status: 0 all is well, 1 some problem
"""


class Trouble(Exception):
    """What is wrong and what would be right, in a sentence."""


class Doctor:
    """The checks, in the order in which a mistake would show; later ones use what earlier ones found."""

    def __init__(self, checkpoint: str | None) -> None:
        """``checkpoint`` is looked at instead of the folder in the settings, unless it is None."""
        self._checkpoint = checkpoint
        self._settings: ServiceConfig | None = None
        self._captioner: Captioner | None = None
        self.checks: tuple[tuple[str, Callable[[], str]], ...] = (
            ("python", self.python),
            ("packages", self.packages),
            ("settings", self.settings),
            ("processes", self.processes),
            ("memory", self.memory),
            ("folder", self.folder),
            ("address", self.address),
            ("rate limit", self.rate_limit),
            ("checkpoint", self.checkpoint),
            ("caption", self.caption),
        )

    def python(self) -> str:
        """Whether the interpreter is new enough."""
        version = ".".join(map(str, sys.version_info[:3]))
        if sys.version_info < LEAST_PYTHON:
            raise Trouble(f"This is Python {version}; 3.11 or newer is needed.")
        return version

    def packages(self) -> str:
        """Whether the packages are those that were tried together."""
        from packaging.requirements import Requirement

        if not REQUIREMENTS.exists():
            return "there is no requirements.txt to compare them with"
        lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
        wanted = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
        wrong = []
        for requirement in wanted:
            try:
                version = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                wrong.append(f"{requirement.name} is missing")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
        if wrong:
            raise Trouble(f"{', '.join(wrong)}; run: {sys.executable} -m pip install -r {REQUIREMENTS}")
        return f"{len(wanted)} as in {REQUIREMENTS.name}"

    def settings(self) -> str:
        """Whether the environment says what can be."""
        from service.config import PREFIX, ServiceConfig
        from service.errors import ConfigError

        try:
            self._settings = ServiceConfig.from_env()
        except ConfigError as error:
            raise Trouble(f"{error}".replace("\n", " ")) from None
        chosen = sorted(name for name in os.environ if name.startswith(PREFIX))
        return f"from the environment: {', '.join(chosen)}" if chosen else "all as by default"

    def processes(self) -> str:
        """Whether there is a core for every process."""
        from service.config import usable_cores

        cores, processes = usable_cores(), self._processes()
        if processes > cores and self._config().device == "cpu":
            raise Trouble(
                f"CAPTION_WORKERS is {processes}, but there are {cores} cores to use; "
                "processes without a core of their own stall the others."
            )
        return f"{processes}, with one torch thread each, on {cores} cores"

    def memory(self) -> str:
        """Whether the largest photos leave the processes alive."""
        processes, available = self._processes(), _available_memory()
        megapixels = self._config().max_pixels / 1_000_000
        a_process = PROCESS_MEMORY + round(self._config().max_pixels * PIXEL_MEMORY)
        needed = SHARED_MEMORY + processes * a_process
        if available < needed:
            raise Trouble(
                f"{available // MEGABYTE} MB are available; {processes} processes need up to "
                f"{needed // MEGABYTE} MB with photos of {megapixels:.0f} megapixels: "
                "lower CAPTION_WORKERS or CAPTION_MAX_PIXELS."
            )
        return f"{available // MEGABYTE} MB available, up to {needed // MEGABYTE} MB needed"

    def folder(self) -> str:
        """Whether the processes can write what they tell one another."""
        memory = Path("/dev/shm")
        folder = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        try:
            with tempfile.TemporaryFile(dir=folder):
                free = shutil.disk_usage(folder).free
        except OSError as error:
            raise Trouble(f"{folder} cannot be written ({error}); set TMPDIR to a folder that can.") from None
        if free < LEAST_FOLDER:
            raise Trouble(f"{folder} has {free // MEGABYTE} MB left; {LEAST_FOLDER // MEGABYTE} are needed.")
        return f"{folder} can be written"

    def address(self) -> str:
        """Whether the service can listen where it is to listen."""
        bind = self._config().bind
        if bind.startswith("unix:"):
            folder = Path(bind.removeprefix("unix:")).parent
            if not os.access(folder, os.W_OK):
                raise Trouble(f"{folder} cannot be written; set CAPTION_BIND to a socket elsewhere.")
            return f"{bind} can be made"
        host, _, port = bind.rpartition(":")
        try:
            _listen(host.strip("[]"), int(port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and _answers(bind):
                return f"{bind} is taken by a service that runs"
            raise Trouble(
                f"{bind} cannot be listened on ({error.strerror}); set CAPTION_BIND to an address and a port "
                "of this computer that are free."
            ) from None
        return f"{bind} is free"

    def rate_limit(self) -> str:
        """Whether what counts the requests answers."""
        from limits.storage import storage_from_string

        config = self._config()
        if not config.rate_limit:
            return "none"
        if config.rate_limit_storage.startswith("memory"):
            return f"{config.rate_limit}, counted in each process by itself"
        wait = {"socket_connect_timeout": ANSWER_SECONDS, "socket_timeout": ANSWER_SECONDS}
        if not storage_from_string(config.rate_limit_storage, **wait).check():
            raise Trouble(
                "The Redis of CAPTION_RATE_LIMIT_STORAGE does not answer; start it, or correct that."
            )
        return f"{config.rate_limit}, counted in a Redis that answers"

    def checkpoint(self) -> str:
        """Whether the captioner is whole."""
        from model import Captioner, CaptioningError

        config = self._config()
        try:
            self._captioner = Captioner.load(self._checkpoint or config.checkpoint, config.device)
        except CaptioningError as error:
            raise Trouble(str(error)) from None
        info = self._captioner.info
        scores = [f"{name} {info.scores[name]:.1f}" for name in ("bleu_4", "cider") if name in info.scores]
        return f"{info.name}, {info.sha256[:12]}, {', '.join(scores) or 'not measured'}"

    def caption(self) -> str:
        """Whether a picture gets a caption and its sheet."""
        import torch
        from PIL import Image, ImageDraw

        from model import contact_sheet, encode_png

        if self._captioner is None:
            raise Trouble("There is no captioner to try; see above.")
        torch.set_num_threads(1)  # as in the service
        picture = Image.new("RGB", (320, 240), "skyblue")
        ImageDraw.Draw(picture).rectangle((60, 120, 260, 240), fill="green")
        start = time.perf_counter()
        [[caption]] = self._captioner.caption([picture])
        captioned = time.perf_counter()
        encode_png(contact_sheet(picture, caption))
        drawn = time.perf_counter()
        words = len(caption.text.split())
        return (
            f"the first, of {words} words, in {captioned - start:.2f} s; drawn in {drawn - captioned:.2f} s"
        )

    def _config(self) -> ServiceConfig:
        """The settings, or the defaults where they are wrong."""
        from service.config import ServiceConfig

        return self._settings or ServiceConfig()

    def _processes(self) -> int:
        from service.config import usable_cores

        config = self._config()
        return config.workers or (usable_cores() if config.device == "cpu" else 1)


def _available_memory() -> int:
    """Bytes that can still be had, of the computer and of the container."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [available] = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    try:
        most, used = (int((CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        kinds = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or no limit set ("max")
        return available
    # Files that were read lately count as used, until somebody needs the memory.
    return min(available, most - used + int(kinds.get("inactive_file", 0)))


def _listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        listener.bind((host, port))
        listener.listen()


def _answers(bind: str) -> bool:
    """Whether this service, or one like it, listens there."""
    try:
        with urllib.request.urlopen(f"http://{bind}/healthz", timeout=ANSWER_SECONDS) as answer:
            return bool(json.load(answer) == {"status": "ok"})
    except (OSError, ValueError):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (those of the process if None); returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m service.doctor",
        description="Look whether the captioning service can run here.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="look at this captioner, not at CAPTION_CHECKPOINT"
    )
    doctor, problems = Doctor(parser.parse_args(arguments).checkpoint), 0
    for name, check in doctor.checks:
        try:
            verdict, found = "ok", check()
        except Trouble as trouble:
            verdict, found = "problem", str(trouble)
        except Exception as error:  # whatever else a check meets is a problem too, and the next ones go on
            verdict, found = "problem", f"{type(error).__name__}: {error}"
        problems += verdict == "problem"
        print(f"{verdict:8} {name:11} {found}", flush=True)
    print(f"{problems} problems" if problems > 1 else "1 problem" if problems else "all is well")
    return SOME_PROBLEM if problems else ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
