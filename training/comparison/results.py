"""The files of a comparison's folder: its settings, the result of every run, and a lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from model import OptionsError
from model.files import write_whole
from training.engine.config import TrainConfig, network_defaults
from training.errors import DataError

RESULT, SETTINGS, LOCK = "result.json", "settings.json", ".lock"
RUNS = "runs"  # the folder with a folder for every run
MEASURED = ("kind", "seed", "parameters", "train_seconds", "attention", "grounding", "captions")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder; the lock goes with its process, however that ends.

    Raises:
        OptionsError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionsError(
                f"Another process is working on {folder}; wait for it, or choose another --output."
            ) from None
        yield


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what all results of the folder have in common.

    Raises:
        OptionsError: the folder holds a comparison with other settings, or runs of something else.
        DataError: the settings it holds are damaged.
    """
    path = folder / SETTINGS
    if path.exists():
        before = read_record(path, "choose another --output")
        known = before.get("network")
        # A comparison begun before a field was new had its default.
        before["network"] = network_defaults(settings["network"]) | (known if isinstance(known, dict) else {})
        recipe = before.get("recipe")
        defaults = {
            name: value for name, value in asdict(TrainConfig()).items() if name in settings["recipe"]
        }
        before["recipe"] = defaults | (recipe if isinstance(recipe, dict) else {})
        if changed := [name for name, value in settings.items() if before.get(name) != value]:
            raise OptionsError(
                f"The comparison in {folder} had another {', '.join(changed)}, or does not say which; "
                "go on with what it had, or choose another --output."
            )
    elif any((folder / RUNS).glob("*")):  # they would be taken for what a killed comparison left
        raise OptionsError(f"{folder / RUNS} holds runs of no comparison; choose another --output.")
    write_whole(path, json.dumps(settings, indent=1))


def read_results(folder: Path, photos: int) -> list[dict[str, Any]]:
    """Every result in the folder, of failed runs too: those have ``failed``, a sentence, in place of figures.

    Raises:
        DataError: one is damaged, or has not as many captions as there are ``photos``.
    """
    return [_read_result(path, photos) for path in sorted((folder / RUNS).glob(f"*/{RESULT}"))]


def _read_result(path: Path, photos: int) -> dict[str, Any]:
    advice = "remove it, and its run is scored again"
    result = read_record(path, advice)
    needed = ("kind", "seed") if "failed" in result else MEASURED
    if missing := [name for name in needed if name not in result]:
        raise DataError(f"{path} has no {', '.join(missing)}; {advice}.")
    captions = result.get("captions", [])
    if "failed" not in result and (not isinstance(captions, list) or len(captions) != photos):
        raise DataError(f"{path} has not one caption for each of {photos} photos; {advice}.")
    return result


def read_record(path: Path, advice: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file is something else; the message ends with ``advice``.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); {advice}.") from None
    if not isinstance(record, dict):
        raise DataError(f"{path} is damaged (it holds no JSON object); {advice}.")
    return record


def sha256_of_file(path: Path | None) -> str | None:
    """Of its bytes; None for no file."""
    return sha256(path.read_bytes()).hexdigest() if path else None
