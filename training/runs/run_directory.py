"""The folder of a training run: what it began with, its log, its state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.checkpoint import MANIFEST
from model.files import write_whole
from training.engine.config import network_defaults
from training.errors import TrainingError

STATE, LOG, LAST, ORIGIN = "state.pt", "log.jsonl", "last", "origin.json"


class RunFolder:
    """Where a run keeps everything it writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / STATE
        self.last = path / LAST  # the checkpoint of the last validated epoch; the best lies in ``path``

    def check_free(self) -> None:
        """Refuse a folder that holds a run or a checkpoint.

        Raises:
            TrainingError: it does.
        """
        # Not ORIGIN: a run that died before its first save left nothing but that, and may begin again.
        if any((self.path / name).exists() for name in (STATE, MANIFEST)):
            raise TrainingError(
                f"{self.path} already holds a run or a checkpoint; "
                "go on with --resume, or choose another --output."
            )

    def check_state(self) -> None:
        """Refuse a folder without a run to go on with.

        Raises:
            TrainingError: there is none.
        """
        if not self.state.exists():
            raise TrainingError(f"There is no run in {self.path} to resume.")

    def begin(self, origin: dict[str, Any]) -> None:
        """Take the folder for a new run.

        Args:
            origin: what a run cannot change on the way.

        Raises:
            TrainingError: there is a run or a checkpoint already.
        """
        self.check_free()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / LOG).unlink(missing_ok=True)  # of the run that died
        write_whole(self.path / ORIGIN, json.dumps(origin, indent=1))

    def check_origin(self, now: dict[str, Any]) -> None:
        """Refuse to go on with another run than was begun here.

        Raises:
            TrainingError: there is none, or it began with something else than ``now``.
        """
        try:
            before = json.loads((self.path / ORIGIN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise TrainingError(f"There is no run in {self.path} to resume.") from None
        if not isinstance(before, dict):
            raise TrainingError(f"{self.path / ORIGIN} is damaged; choose another --output.")
        before = network_defaults(now) | before  # a run begun before a field was new had its default
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise TrainingError(
                f"The run in {self.path} had another {', '.join(changed)}; "
                "go on with what it had, or choose another --output."
            )

    def append_to_log(self, line: dict[str, Any]) -> None:
        """Add an epoch."""
        with (self.path / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def forget_log_after(self, epoch: int) -> None:
        """A run that died between its log and its state does the epoch again."""
        kept = [line for line in read_log(self.path) if line["epoch"] <= epoch]
        if kept:
            write_whole(self.path / LOG, "\n".join(map(json.dumps, kept)))
        else:
            (self.path / LOG).unlink(missing_ok=True)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The epochs of the run in a folder; of a line that was cut off as it was written nothing."""
    path = folder / LOG
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]
