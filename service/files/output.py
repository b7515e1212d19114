"""The output folder of a batch run: settings, records that survive a crash, and further formats.

To add a format, write a ``Writer`` and name it in ``WRITERS``: the name becomes an option of
``service.batch`` and a key of ``settings.json``.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from PIL import Image

from model import Caption, contact_sheet, encode_png
from model.files import append_lines, replacing, write_whole
from service.errors import OutputError

OVERLAYS = "overlays"  # folder
# What reading JSON of another program, or damaged JSON, raises; deep nesting is a RecursionError.
_NOT_OURS = (ValueError, KeyError, TypeError, RecursionError)


class Writer(Protocol):
    """Writes one format, beside the records."""

    help: ClassVar[str]  # of the option that selects the format

    def __init__(self, output: Path) -> None:
        """``output`` is the folder of the run."""

    def write(self, name: str, image: Image.Image, captions: Sequence[Caption]) -> None:
        """Write what belongs to one image, whose record follows.

        Args:
            name: of the image in every output, a relative path with forward slashes.
            image: upright, RGB.
            captions: at least one, best first.

        Raises:
            OSError: it cannot be written; the image counts as failed.
        """


class OverlayWriter:
    """``overlays/NAME.png``: a contact sheet with the attention map of every word of the best caption."""

    help: ClassVar[str] = "draw a contact sheet of every photo with the attention map of each word"

    def __init__(self, output: Path) -> None:
        self._folder = output / OVERLAYS

    def write(self, name: str, image: Image.Image, captions: Sequence[Caption]) -> None:
        path = self._folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(encode_png(contact_sheet(image, captions[0])))


WRITERS: dict[str, type[Writer]] = {"overlays": OverlayWriter}


class Records:
    """``captions.jsonl``: one record per line, appended and synced to disk batch by batch."""

    def __init__(self, path: Path) -> None:
        """Read the records of an earlier run and cut off a last line that a crash left incomplete.

        Raises:
            OutputError: a line is not a record.
        """
        self._path = path
        self._lines = 0
        self._sha256: dict[str, str] = {}  # by image
        if path.exists():
            with path.open("rb+") as file:
                file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
            for image, sha256, _ in self._read():
                self._sha256[image] = sha256
                self._lines += 1

    def sha256_of(self, image: str) -> str | None:
        """The digest of the content that the record of ``image`` describes; None without a record."""
        return self._sha256.get(image)

    def discard(self, image: str) -> None:
        """Drop the record of ``image``, if there is one: the content of the file has changed."""
        self._sha256.pop(image, None)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add ``records``; they are on disk when this returns."""
        append_lines(self._path, records)
        self._lines += len(records)
        self._sha256.update((record["image"], record["sha256"]) for record in records)

    def compact(self) -> None:
        """Rewrite the file without discarded records."""
        if self._lines != len(self._sha256):
            wanted = set(self._sha256.items())
            with replacing(self._path) as file:
                for image, sha256, line in self._read():
                    if (image, sha256) in wanted:
                        wanted.remove((image, sha256))
                        file.write(line)
            self._lines = len(self._sha256)

    def _read(self) -> Iterator[tuple[str, str, bytes]]:
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    record = json.loads(line)
                    yield record["image"], record["sha256"], line
                except _NOT_OURS:
                    raise OutputError(
                        f"Line {number} of {self._path} is not a caption record; "
                        "delete the line, or choose another --output."
                    ) from None


def keep_settings(path: Path, settings: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Write the settings of a run, which must be those of earlier runs into the same folder.

    Args:
        path: a JSON file, which need not exist.
        settings: of this run.
        defaults: of settings that an older version did not write, because it did not have them.

    Raises:
        OutputError: the file has other settings, or cannot be read.
    """
    if path.exists():
        try:
            earlier = defaults | json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in settings if earlier[name] != settings[name]]
        except _NOT_OURS:
            raise OutputError(
                f"{path} is damaged, or not from a batch run; choose another --output."
            ) from None
        if changed:
            raise OutputError(
                f"{path.parent} was written with another {', '.join(changed)}; "
                "use the same settings, or choose another --output."
            )
    write_whole(path, json.dumps(settings, indent=1))
