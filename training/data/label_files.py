"""Label files: the probabilities that any image classifier gives to what photos show.

{"labels": ["espresso", "cup"], "photos": {"coffee.jpg": {"0": 0.77, "1": 0.1}}}

Photos are named by their file names, labels by their places in the list. Labels that a photo does not list
have a probability of 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.labels import MAX_NAME_BYTES
from training.data.json_files import parse_json, read_text
from training.errors import DataError


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """The content of a label file."""

    names: Sequence[str]  # of the labels
    photos: Mapping[
        str, Mapping[int, float]
    ]  # by file name: the probability of labels, by place in ``names``


def read_labels(file: Path) -> LabelFile:
    """The content of a label file.

    Raises:
        DataError: the file cannot be read or is malformed; the message names the entry.
    """
    text = read_text(file, "labels")
    try:
        data = parse_json(text)
        names = _names(data["labels"])
        photos = {name: _probabilities(name, found, len(names)) for name, found in data["photos"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not a label file ({type(error).__name__}: {error}); it must have the list "
            "'labels' of names, and the object 'photos' of file names, each with label numbers and "
            "probabilities."
        ) from None
    except DataError as error:
        raise DataError(f"In {file}, {error}") from None
    return LabelFile(names=names, photos=photos)


def _names(found: list[str]) -> list[str]:
    names = [name.strip() for name in found]
    if not names:
        raise DataError("the list of labels is empty; it must have the names of one label or more.")
    for name in names:
        if not 0 < len(name.encode()) <= MAX_NAME_BYTES or not name.isprintable() or names.count(name) > 1:
            raise DataError(
                f"the label {name!r} cannot be used; names must be printable, different from each other and "
                f"at most {MAX_NAME_BYTES} bytes long."
            )
    return names


def _probabilities(photo: str, found: Mapping[str, float], labels: int) -> dict[int, float]:
    probabilities = {int(index): float(value) for index, value in found.items()}
    for index, value in probabilities.items():
        if not (0 <= index < labels and 0 <= value <= 1):
            raise DataError(
                f"{photo} has the probability {value} of label {index}; labels are numbered from 0 to "
                f"{labels - 1}, and probabilities are from 0 to 1."
            )
    return probabilities
