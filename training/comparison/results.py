"""The files of an experiment: its settings and the result of every run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model import DecodingOptions, OptionsError
from model.files import write_whole
from training.engine.config import EARLIER_RUNS, REMOVED_OPTIONS, TrainConfig, network_defaults
from training.errors import DataError

RESULT, SETTINGS = "result.json", "settings.json"
RUNS = "runs"  # a folder with a folder for every run
MEASURED = ("kind", "seed", "parameters", "train_seconds", "attention", "grounding", "captions")


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write what all results in the folder have in common.

    Raises:
        OptionsError: the folder has an experiment with other settings, or runs of something else.
        DataError: the settings in the folder are damaged.
    """
    path = folder / SETTINGS
    if path.exists():
        before = _with_defaults(read_record(path, "choose another --output"), settings)
        if changed := [name for name, value in settings.items() if before.get(name) != value]:
            raise OptionsError(
                f"The comparison in {folder} has a different {', '.join(changed)}; continue it with the same "
                "data and options, or choose another --output."
            )
    elif any((folder / RUNS).glob("*")):  # they would be taken for those of an interrupted experiment
        raise OptionsError(f"{folder / RUNS} has runs of something else; choose another --output.")
    write_whole(path, json.dumps(settings, indent=1))


def _with_defaults(before: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an experiment, which had the defaults of fields that are newer than it."""
    recipe = asdict(TrainConfig())
    defaults = {
        "network": network_defaults(settings["network"]),
        "recipe": {name: recipe[name] for name in settings["recipe"]},
        "decoding": asdict(DecodingOptions()),
    }
    filled: dict[str, Any] = EARLIER_RUNS | before
    for name, values in defaults.items():
        record = before.get(name)
        known = record.items() if isinstance(record, dict) else ()
        filled[name] = values | {
            key: value for key, value in known if (key, value) not in REMOVED_OPTIONS.items()
        }
    return filled


def earlier_options(folder: Path) -> dict[str, Any]:
    """The fields in ``EARLIER_RUNS`` of every run in the folder; of a new experiment none of them applies.

    Raises:
        DataError: the settings in the folder are damaged.
    """
    path = folder / SETTINGS
    if not path.exists():
        return dict.fromkeys(EARLIER_RUNS, False)
    settings = read_record(path, "choose another --output")
    return {name: bool(settings.get(name, value)) for name, value in EARLIER_RUNS.items()}


def read_results(folder: Path, photos: int) -> list[dict[str, Any]]:
    """Read every result in the folder; those of failed runs have ``failed``, a sentence, and no figures.

    Raises:
        DataError: a result is damaged, or does not have one caption for each of ``photos``.
    """
    return [_read_result(path, photos) for path in sorted((folder / RUNS).glob(f"*/{RESULT}"))]


def _read_result(path: Path, photos: int) -> dict[str, Any]:
    advice = "delete it to score its run again"
    result = read_record(path, advice)
    needed = ("kind", "seed") if "failed" in result else MEASURED
    if missing := [name for name in needed if name not in result]:
        raise DataError(f"{path} has no {', '.join(missing)}; {advice}.")
    captions = result.get("captions", [])
    if "failed" not in result and (not isinstance(captions, list) or len(captions) != photos):
        raise DataError(f"{path} does not have one caption for each of {photos} photos; {advice}.")
    return result


def read_record(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file has something else; the message ends with ``advice``.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); {advice}.") from None
    if not isinstance(record, dict):
        raise DataError(f"{path} is damaged (not a JSON object); {advice}.")
    return record
