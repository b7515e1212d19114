"""The log of a run: ``log.jsonl``, one JSON object an epoch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.files import write_whole
from training.errors import TrainingError

LOG = "log.jsonl"

EpochLine = Mapping[str, Any]  # one epoch; its fields are those that ``Run`` logs


def append_epoch(run: Path, line: EpochLine) -> None:
    """Append an epoch to the log in the folder ``run``."""
    with (run / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the epochs logged in the folder ``run``, in order.

    A last line without a newline was cut off while it was written, and is ignored.

    Raises:
        TrainingError: a line is not a JSON object with an epoch number.
    """
    path = run / LOG
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def truncate_log(run: Path, epoch: int) -> None:
    """Drop the epochs after ``epoch``: a run that died between its log and its state repeats them.

    Raises:
        TrainingError: a line is not a JSON object with an epoch number.
    """
    kept = [line for line in read_log(run) if line["epoch"] <= epoch]
    if kept:
        write_whole(run / LOG, "\n".join(map(json.dumps, kept)))
    else:
        (run / LOG).unlink(missing_ok=True)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        epoch = json.loads(line)
    except (ValueError, RecursionError):
        epoch = None
    if not isinstance(epoch, dict) or type(epoch.get("epoch")) is not int:
        raise TrainingError(
            f"{path}, line {number}, is damaged; delete the line to resume without that epoch."
        )
    return epoch
