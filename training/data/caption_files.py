"""Captions files: which photos they list, with which captions, in any of the ``FORMATS``.

The format is detected by content. To add one, write a function that detects it and one that yields its rows,
and add both to ``FORMATS``. Nothing here opens a photo.
"""

import csv
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from model import ImageError, open_image
from model.tokenizer import tokenize
from training.data.json_files import parse_json, read_text
from training.data.splits import SPLITS, split_by_name
from training.errors import DataError

MAX_FIRST_LINE = 10_000  # characters used to detect the format; csv takes no field above 131,072

_TOKEN_LINE = re.compile(r"(.+?)#\d+\t(.*)")
_NOT_IN_FILE_NAMES = re.compile("[\0\ud800-\udfff]")  # zeros and lone surrogates; JSON can hold both


@dataclass(frozen=True, kw_only=True)
class CaptionedPhoto:
    """A photo on disk and its captions."""

    path: Path
    captions: tuple[tuple[str, ...], ...]  # tokenized; only ``parse_captions`` gives empty ones
    split: str  # one of SPLITS

    def read(self) -> Image.Image:
        """The upright RGB image.

        Raises:
            DataError: the photo is missing or cannot be decoded; the message names it.
        """
        try:
            return open_image(self.path.read_bytes()).image
        except (OSError, ImageError) as error:
            raise DataError(f"The photo {self.path} cannot be read: {error}") from None


def parse_captions(file: Path, images: Path) -> list[CaptionedPhoto]:
    """Everything that a captions file lists, including captions without words and missing photos.

    Args:
        file: in one of the ``FORMATS``.
        images: the folder of its photos.

    Returns:
        The photos in the order of the file, one for each name and split. A caption without words is an empty
        tuple. Photos of a file without splits get theirs from ``split_by_name``.

    Raises:
        DataError: the file cannot be read, is in none of the ``FORMATS``, is malformed, or names a photo
            outside its folder; the message names the line or the entry.
    """
    text = read_text(file, "captions")
    try:
        captions: dict[tuple[str, str | None], list[str]] = {}
        for row in _rows(_Content(text)):
            captions.setdefault((_checked_name(row), _checked_split(row)), []).extend(row.captions)
    except DataError as error:
        raise DataError(f"In {file}, {error}") from None
    drawn = split_by_name({name for name, split in captions if split is None})
    return [
        CaptionedPhoto(
            path=images / name,
            captions=tuple(tuple(tokenize(caption)) for caption in of_photo),
            split=split or drawn[name],
        )
        for (name, split), of_photo in captions.items()
    ]


class _Row(NamedTuple):
    """A photo as a file lists it, with all of its captions or some of them."""

    location: str  # in the file, for messages
    name: str  # relative to the images folder
    captions: list[str]
    split: str | None = None


@dataclass(frozen=True)
class _Content:
    """The text of a file of an unknown format."""

    text: str

    @cached_property
    def first_line(self) -> str:
        return self.text.lstrip().split("\n", 1)[0][:MAX_FIRST_LINE]

    @cached_property
    def json(self) -> dict[str, Any]:
        """The JSON object that lists images, or an empty one."""
        data = parse_json(self.text) if self.first_line.startswith(("{", "[")) else None
        return data if isinstance(data, dict) and "images" in data else {}


class _Format(NamedTuple):
    name: str  # for messages and the help
    matches: Callable[[_Content], bool]
    rows: Callable[[_Content], Iterator[_Row]]


def _rows(content: _Content) -> Iterator[_Row]:
    for known in FORMATS:
        if known.matches(content):
            return known.rows(content)
    raise DataError(f"the format is unknown; captions must be {FORMAT_NAMES}.")


def _checked_name(row: _Row) -> str:
    name = os.path.normpath(row.name)
    if not row.name or name == "." or _NOT_IN_FILE_NAMES.search(name):
        raise DataError(f"{row.location} names no photo.")
    if os.path.isabs(name) or name.split(os.sep)[0] == "..":
        raise DataError(f"{row.location} names {row.name!r}; the path must be inside the images folder.")
    return name


def _checked_split(row: _Row) -> str | None:
    if row.split not in (None, *SPLITS):
        raise DataError(
            f"{row.location} has the split {row.split!r}; it must be train, restval, val or test."
        )
    return row.split


# JSON


def _is_karpathy(content: _Content) -> bool:
    return bool(content.json) and not _is_coco(content)


def _karpathy_rows(content: _Content) -> Iterator[_Row]:
    for location, entry in _objects(content.json, "images"):
        name = os.path.join(str(entry.get("filepath", "")), _text(entry, "filename", location))
        captions = [_text(sentence, "raw", at) for at, sentence in _objects(entry, "sentences", location)]
        yield _Row(location, name, captions, _text(entry, "split", location))


def _is_coco(content: _Content) -> bool:
    return "annotations" in content.json


def _coco_rows(content: _Content) -> Iterator[_Row]:
    rows: dict[int | str, _Row] = {}
    for location, entry in _objects(content.json, "images"):
        row = _Row(location, _text(entry, "file_name", location), [])
        if rows.setdefault(_identifier(entry, "id", location), row) is not row:
            raise DataError(f"{location} repeats the 'id' {entry['id']!r}.")
    for location, entry in _objects(content.json, "annotations"):
        identifier = _identifier(entry, "image_id", location)
        if identifier not in rows:
            raise DataError(f"{location} has the 'image_id' {identifier!r}, which 'images' does not list.")
        rows[identifier].captions.append(_text(entry, "caption", location))
    yield from rows.values()


def _objects(data: Mapping[str, Any], name: str, location: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    listed = data.get(name)
    if not isinstance(listed, list):
        raise DataError(f"{location or 'the file'} has no list {name!r}.")
    for number, entry in enumerate(listed):
        at = f"{location}.{name}[{number}]".lstrip(".")
        if not isinstance(entry, dict):
            raise DataError(f"{at} is not an object.")
        yield at, entry


def _text(entry: Mapping[str, Any], name: str, location: str) -> str:
    if not isinstance(text := entry.get(name), str):
        raise DataError(f"{location} has no text {name!r}.")
    return text


def _identifier(entry: Mapping[str, Any], name: str, location: str) -> int | str:
    if not isinstance(identifier := entry.get(name), int | str):
        raise DataError(f"{location} has no number {name!r}.")
    return identifier


# Text


def _is_token_file(content: _Content) -> bool:
    return _TOKEN_LINE.fullmatch(content.first_line) is not None


def _token_rows(content: _Content) -> Iterator[_Row]:
    for number, line in enumerate(content.text.split("\n"), start=1):
        if line.strip():
            if not (found := _TOKEN_LINE.fullmatch(line)):
                raise DataError(f"line {number} is not 'name.jpg#0', a tab and a caption.")
            yield _Row(f"line {number}", found[1], [found[2]])


def _is_csv(content: _Content) -> bool:
    header = next(csv.reader([content.first_line], skipinitialspace=True), [])
    return {"image", "caption"} <= set(_column_names(header))


def _csv_rows(content: _Content) -> Iterator[_Row]:
    records = _csv_records(content.text)
    location, header = next(records)
    columns = _column_names(header)
    if repeated := [name for name in ("image", "caption", "split") if columns.count(name) > 1]:
        raise DataError(f"{location} has two columns {repeated[0]!r}; every caption needs its own row.")
    for location, fields in records:
        if len(fields) != len(columns):
            raise DataError(
                f"{location} has {len(fields)} fields and the header {len(columns)}; "
                "a caption with a comma must be in double quotes."
            )
        row = dict(zip(columns, fields, strict=True))
        split = row["split"].strip() if "split" in row else None
        yield _Row(location, row["image"].strip(), [row["caption"]], split)


def _column_names(fields: Sequence[str]) -> list[str]:
    return [field.strip().lower() for field in fields]


def _csv_records(text: str) -> Iterator[tuple[str, list[str]]]:
    """The records that are not blank, each with the line on which it begins."""
    # Strict, because otherwise an unclosed quote would silently swallow the rest of the file.
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True)
    begin = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield f"line {begin}", fields
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"the record that begins on line {begin} is not CSV: {error}.") from None


FORMATS = (
    _Format("COCO captions JSON", _is_coco, _coco_rows),
    _Format("Karpathy JSON", _is_karpathy, _karpathy_rows),
    _Format("a Flickr token file", _is_token_file, _token_rows),
    _Format("CSV with the columns image,caption", _is_csv, _csv_rows),
)
FORMAT_NAMES = f"{', '.join(known.name for known in FORMATS[:-1])}, or {FORMATS[-1].name}"
