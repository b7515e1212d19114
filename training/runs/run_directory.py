"""The folder of a training run: what identifies the run, its state, its checkpoints, and its lock."""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from model.checkpoint import MANIFEST
from model.errors import OutputFolderError
from model.files import locked, write_whole
from training.engine.config import EARLIER_RUNS, network_defaults
from training.engine.distributed import is_main_process
from training.errors import TrainingError
from training.reporting.epoch_log import LOG, read_log

STATE, LAST, ORIGIN = "state.pt", "last", "origin.json"


class RunDirectory:
    """Where a run keeps everything it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / STATE
        self.last = path / LAST  # checkpoint of the last validated epoch; the best one is in ``path``

    def check(self, *, resume: bool) -> None:
        """Check, before any work, that a run can be resumed here, or that a new one can be written.

        Raises:
            OutputFolderError: the folder cannot be written.
            TrainingError: there is no run to resume, its log is damaged, or the folder already has a run or
                a checkpoint.
        """
        check_output(self.path)
        if not resume:
            self._check_free()
        elif not self.state.exists():
            raise TrainingError(f"There is no run in {self.path} to resume.")
        else:
            read_log(self.path)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder while the context lasts; of several processes only the main one locks.

        Raises:
            OutputFolderError: another process has the lock.
        """
        return locked(self.path) if is_main_process() else nullcontext()

    def begin(self, origin: dict[str, Any]) -> None:
        """Start a new run, whose ``origin`` must stay the same on resuming; creates the folder if missing.

        Raises:
            TrainingError: the folder already has a run or a checkpoint.
        """
        self._check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / LOG).unlink(missing_ok=True)  # of a run that died before its first save
        write_whole(self.path / ORIGIN, json.dumps(origin, indent=1))

    def read_origin(self) -> dict[str, Any]:
        """What ``begin`` wrote.

        Raises:
            TrainingError: there is no run, or the file is damaged.
        """
        try:
            before = json.loads((self.path / ORIGIN).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise TrainingError(f"There is no run in {self.path} to resume.") from None
        if not isinstance(before, dict):
            raise TrainingError(f"{self.path / ORIGIN} is damaged; choose another --output.")
        return before

    def check_origin(self, origin: dict[str, Any]) -> None:
        """Check that the run in the folder was started with this ``origin``.

        Raises:
            TrainingError: there is no run, or it was started with something else.
        """
        # Fields that are newer than the run had these values.
        before = network_defaults(origin) | EARLIER_RUNS | self.read_origin()
        changed = [name for name, value in origin.items() if before.get(name) != value]
        if changed:
            raise TrainingError(
                f"The run in {self.path} was started with a different {', '.join(changed)}; "
                "resume it with the same data and options, or choose another --output."
            )

    def _check_free(self) -> None:
        # Not ORIGIN: a run that died before its first save left nothing else and may start again.
        if any((self.path / name).exists() for name in (STATE, MANIFEST)):
            raise TrainingError(
                f"{self.path} already has a run or a checkpoint; resume it with fit --resume, or choose "
                "another --output."
            )


def check_output(path: Path) -> None:
    """Check that a folder can be created or written at ``path``, without creating it.

    Raises:
        OutputFolderError: ``path`` or a parent of it is a file, or is not writable.
    """
    path = path.absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    is_folder = existing.is_dir()
    if not is_folder or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is not writable" if is_folder else "is not a folder"
        raise OutputFolderError(f"Cannot write to {path}: {existing} {reason}; choose another --output.")
