"""Captioned photos: the file that lists them, in any of four forms, and reading one of them.

Knows nothing of networks, and does not look at a photo before it is read.
"""

from __future__ import annotations

import csv
import json
import os.path
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from model import ImageError, OptionsError, open_image
from model.tokenizer import tokenize
from training.errors import DataError

SPLITS = ("train", "restval", "val", "test")
FORMS = "Karpathy JSON, COCO captions JSON, a Flickr token file, or CSV with the columns image,caption"
HELD_OUT = 0.1  # share of the photos of a file without splits that is val, and share that is test

LONGEST_HEAD = 10_000  # characters of the first line that are looked at; csv takes no field above 131,072

_TOKEN_LINE = re.compile(r"(.+?)#\d+\t(.*)")
_IN_NO_FILE_NAME = re.compile("[\0\ud800-\udfff]")  # zeros and halves of characters; JSON can hold both


@dataclass(frozen=True, kw_only=True)
class CaptionedPhoto:
    """A photo on disk and what people wrote of it."""

    path: Path
    captions: tuple[tuple[str, ...], ...]  # tokenized; without words only as ``list_sets`` gives them
    split: str  # train, restval, val or test

    def read(self) -> Image.Image:
        """The photo, upright RGB.

        Raises:
            DataError: it is missing or cannot be decoded; the message names it.
        """
        try:
            return open_image(self.path.read_bytes()).image
        except (OSError, ImageError) as error:
            raise DataError(f"The photo {self.path} cannot be read: {error}") from None


def read_photos(captions: Path, images: Path, splits: Collection[str] = SPLITS) -> list[CaptionedPhoto]:
    """The photos of ``splits`` that a captions file lists, whose files lie in ``images``.

    Captions without words are left out, and so are photos that have no others.

    Raises:
        DataError: the file is not as ``list_sets`` wants it, or names photos that do not exist.
    """
    photos = list_photos(captions, images, splits)
    if missing := [photo.path for photo in photos if not photo.path.is_file()]:
        raise DataError(f"{len(missing)} photos of {captions} do not exist, {missing[0]} first.")
    return photos


def list_photos(captions: Path, images: Path, splits: Collection[str] = SPLITS) -> list[CaptionedPhoto]:
    """What ``read_photos`` gives, without a look at whether the photos exist.

    Raises:
        DataError: the file is not as ``list_sets`` wants it.
    """
    return with_captions(one for one in list_sets([captions], [images]) if one.split in splits)


def list_sets(captions: Sequence[Path], images: Sequence[Path]) -> list[CaptionedPhoto]:
    """Everything that captions files list, each with the folder its photos lie in.

    A file may be, judged by its content: Karpathy JSON; COCO captions JSON; a Flickr token file (lines of
    ``name.jpg#0``, a tab and a caption); or CSV whose header names the columns ``image`` and ``caption`` in
    any order, with a ``split`` or without, one caption a row. Photos of a file without splits get
    theirs from ``split_by_name``. Nothing is left out: a caption without words is an empty tuple.

    Returns:
        The photos in the order of the files; one that a file lists several times in one split is one.

    Raises:
        OptionsError: there are not as many folders as files.
        DataError: a file cannot be read, has none of these forms, breaks its own, or names a photo
            outside its folder; the message names the line or the entry.
    """
    if len(captions) != len(images):
        raise OptionsError(
            f"There are {len(captions)} --captions and {len(images)} --images; "
            "every captions file needs the folder of its photos."
        )
    pairs = zip(captions, images, strict=True)
    return [photo for file, folder in pairs for photo in _list_set(file, folder)]


def with_captions(photos: Iterable[CaptionedPhoto]) -> list[CaptionedPhoto]:
    """The photos without their empty captions, and without those that have no others."""
    told = (replace(one, captions=tuple(filter(None, one.captions))) for one in photos)
    return [photo for photo in told if photo.captions]


def split_by_name(names: Collection[str]) -> dict[str, str]:
    """A split for every photo of a set that has none: 80 % train, 10 % val, 10 % test.

    A hash of the name alone decides (the path inside the images folder; not the content, nor the order), so
    that adding or removing photos moves no other. That matters most: what was trained on must not turn
    up among what is scored. A small set may have no hash in the tenth of val or of test; then, and only
    then, the photos with the smallest hashes are taken, so that from three photos on every split
    has one. As photos are added, those go back to where their
    hashes put them.
    """
    order = sorted(names, key=_fraction)
    count = len(order)
    val = sum(_fraction(name) < HELD_OUT for name in order)  # where val ends, and below where test ends
    test = sum(_fraction(name) < 2 * HELD_OUT for name in order)
    val = min(max(val, 1), max(count - 2, count // 2))  # of two photos one is val and one train
    test = min(max(test, val + 1), max(count - 1, 0))
    splits = ["val"] * val + ["test"] * (test - val) + ["train"] * (count - test)
    return dict(zip(order, splits, strict=True))


def _fraction(name: str) -> float:
    """A name's hash, as a number from 0 to 1."""
    return int.from_bytes(sha256(name.encode()).digest()[:8]) / 2**64


class _Row(NamedTuple):
    """A photo as a file lists it, with all its captions or with some."""

    place: str  # in the file, for messages
    name: str
    captions: list[str]
    split: str | None = None


def _list_set(captions: Path, images: Path) -> list[CaptionedPhoto]:
    try:
        text = captions.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark before CSV
    except OSError as error:
        raise DataError(f"The captions {captions} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DataError(f"The captions {captions} are not UTF-8 text; they must be {FORMS}.") from None
    try:
        rows = _parse(text)
        if rows is None:
            raise DataError(f"nothing has a form that is known; captions must be {FORMS}.")
        gathered: dict[tuple[str, str | None], list[str]] = {}
        for row in rows:
            gathered.setdefault(_checked(row), []).extend(row.captions)
    except DataError as error:
        raise DataError(f"In {captions}, {error}") from None
    drawn = split_by_name({name for name, split in gathered if split is None})
    return [
        CaptionedPhoto(
            path=images / name,
            captions=tuple(tuple(tokenize(caption)) for caption in told),
            split=split or drawn[name],
        )
        for (name, split), told in gathered.items()
    ]


def _checked(row: _Row) -> tuple[str, str | None]:
    """The row's photo, relative to the images folder and in it, and its split."""
    name = os.path.normpath(row.name)
    if not row.name or name == "." or _IN_NO_FILE_NAME.search(name):
        raise DataError(f"{row.place} names no photo.")
    if os.path.isabs(name) or name.split(os.sep)[0] == "..":
        raise DataError(
            f"{row.place} names {row.name!r}; it must lie in the images folder, named from there."
        )
    if row.split not in (None, *SPLITS):
        raise DataError(f"{row.place} has the split {row.split!r}; it must be train, restval, val or test.")
    return name, row.split


def _parse(text: str) -> Iterator[_Row] | None:
    """The rows of a file of a known form, else None; its name says little ("captions.txt" is often CSV)."""
    head = text.lstrip().split("\n", 1)[0][:LONGEST_HEAD]
    if head.startswith(("{", "[")):
        data = _from_json(text)
        if not isinstance(data, dict) or "images" not in data:
            return None
        return _coco_rows(data) if "annotations" in data else _karpathy_rows(data)
    if _TOKEN_LINE.fullmatch(head):
        return _token_rows(text)
    if {"image", "caption"} <= set(_column_names(next(csv.reader([head], skipinitialspace=True), []))):
        return _csv_rows(text)
    return None


def _column_names(fields: Sequence[str]) -> list[str]:
    return [field.strip().lower() for field in fields]


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"line {error.lineno}, column {error.colno}, is not JSON: {error.msg}.") from None
    except RecursionError:
        raise DataError("lists lie in lists too deep to be captions.") from None


def _karpathy_rows(data: Mapping[str, Any]) -> Iterator[_Row]:
    for place, entry in _objects(data, "images"):
        name = os.path.join(str(entry.get("filepath", "")), _text(entry, "filename", place))
        captions = [_text(told, "raw", at) for at, told in _objects(entry, "sentences", place)]
        yield _Row(place, name, captions, _text(entry, "split", place))


def _coco_rows(data: Mapping[str, Any]) -> Iterator[_Row]:
    rows: dict[Any, _Row] = {}
    for place, entry in _objects(data, "images"):
        row = _Row(place, _text(entry, "file_name", place), [])
        if rows.setdefault(_identity(entry, "id", place), row) is not row:
            raise DataError(f"{place} has the 'id' of another, {entry['id']!r}.")
    for place, entry in _objects(data, "annotations"):
        identity = _identity(entry, "image_id", place)
        if identity not in rows:
            raise DataError(f"{place} is of the image {identity!r}, which 'images' does not list.")
        rows[identity].captions.append(_text(entry, "caption", place))
    yield from rows.values()


def _objects(data: Mapping[str, Any], name: str, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of the list ``name``, each with its place."""
    listed = data.get(name)
    if not isinstance(listed, list):
        raise DataError(f"{place or 'the file'} has no list {name!r}.")
    for number, entry in enumerate(listed):
        at = f"{place}.{name}[{number}]".lstrip(".")
        if not isinstance(entry, dict):
            raise DataError(f"{at} is no object.")
        yield at, entry


def _text(entry: Mapping[str, Any], name: str, place: str) -> str:
    if not isinstance(text := entry.get(name), str):
        raise DataError(f"{place} has no text {name!r}.")
    return text


def _identity(entry: Mapping[str, Any], name: str, place: str) -> int | str:
    if not isinstance(identity := entry.get(name), int | str):
        raise DataError(f"{place} has no number {name!r}.")
    return identity


def _token_rows(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            if not (found := _TOKEN_LINE.fullmatch(line)):
                raise DataError(f"line {number} is not 'name.jpg#0', a tab and a caption.")
            yield _Row(f"line {number}", found[1], [found[2]])


def _csv_rows(text: str) -> Iterator[_Row]:
    records = _csv_records(text)
    place, header = next(records)
    columns = _column_names(header)
    if twice := [name for name in ("image", "caption", "split") if columns.count(name) > 1]:
        raise DataError(f"{place} has two columns {twice[0]!r}; every caption needs its own row.")
    for place, fields in records:
        if len(fields) != len(columns):
            raise DataError(
                f"{place} has {len(fields)} fields and the header {len(columns)}; "
                "a caption with a comma must be in double quotes."
            )
        row = dict(zip(columns, fields, strict=True))
        split = row["split"].strip() if "split" in row else None
        yield _Row(place, row["image"].strip(), [row["caption"]], split)


def _csv_records(text: str) -> Iterator[tuple[str, list[str]]]:
    """The records that are not blank, each with the line on which it begins."""
    # Strict, or a quote that is never closed would swallow the rest of the file unseen.
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True)
    begin = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield f"line {begin}", fields
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"what begins on line {begin} is not CSV: {error}.") from None
