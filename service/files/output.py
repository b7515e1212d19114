"""The files a batch run writes: records that survive a crash. Knows nothing of photos."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model.files import append_lines, replacing, write_whole
from service.errors import OutputError


class Records:
    """``captions.jsonl``: one record a line, each batch on the disk before the next one begins."""

    def __init__(self, path: Path) -> None:
        """Take up the records of an earlier run; a last line that was torn by a crash is cut off.

        Raises:
            OutputError: the file holds a line that is not a record.
        """
        self._path = path
        self._lines = 0
        self._sha256: dict[str, str] = {}  # by image, of the content its record describes
        if path.exists():
            _cut_torn_line(path)
            for image, sha256, _ in self._read():
                self._sha256[image] = sha256
                self._lines += 1

    def holds(self, image: str, sha256: str) -> bool:
        """Whether ``image`` is recorded with this very content."""
        return self._sha256.get(image) == sha256

    def supersede(self, image: str) -> None:
        """Give up the record of ``image``, if there is one: the file has other content now."""
        self._sha256.pop(image, None)

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add ``records``; when this returns they survive a crash."""
        append_lines(self._path, records)
        self._lines += len(records)
        self._sha256.update((record["image"], record["sha256"]) for record in records)

    def drop_superseded(self) -> None:
        """Leave one record a photo: that of the content it has now."""
        if self._lines != len(self._sha256):
            with replacing(self._path) as file:
                file.writelines(self._current_lines())
            self._lines = len(self._sha256)

    def _current_lines(self) -> Iterator[bytes]:
        wanted = set(self._sha256.items())
        for image, sha256, line in self._read():
            if (image, sha256) in wanted:
                wanted.remove((image, sha256))
                yield line

    def _read(self) -> Iterator[tuple[str, str, bytes]]:
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    record = json.loads(line)
                    yield record["image"], record["sha256"], line
                except (ValueError, KeyError, TypeError):
                    raise OutputError(
                        f"Line {number} of {self._path} is not a caption record; "
                        "delete the line, or choose another --output."
                    ) from None


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write down how this output is made; an output made in another way is not continued.

    Raises:
        OutputError: ``path`` tells of other settings.
    """
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name, value in settings.items() if before[name] != value]
        except (ValueError, KeyError, TypeError):
            raise OutputError(f"{path} is not ours, or damaged; choose another --output.") from None
        if changed:
            raise OutputError(
                f"{path.parent} was captioned with another {', '.join(changed)}; "
                "continue with the same, or choose another --output."
            )
    write_whole(path, json.dumps(settings, indent=1))


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole)
