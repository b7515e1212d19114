"""Finds image files and gives each a name in the output. Does not decode them."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from model import ImageLimitError
from service.errors import InputError

# File names taken for images inside a folder. Those of the second line cannot be decoded; they are
# listed in errors.jsonl rather than ignored.
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp")
    + (".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl", ".jp2")
)
MAX_FILE_BYTES = 512 * 2**20  # more than the largest accepted image takes without compression


@dataclass(frozen=True)
class Source:
    """An image file and its name in every output."""

    path: Path
    name: str  # relative, with forward slashes, unique

    def read(self) -> bytes:
        """The content of the file.

        Raises:
            OSError: the file cannot be read.
            ImageLimitError: it is larger than any accepted image can be.
        """
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ImageLimitError(f"The file has {size:,} bytes; the maximum is {MAX_FILE_BYTES:,}.")
            return file.read()


def find_sources(inputs: Sequence[str], ignored: Path) -> list[Source]:
    """The image files that ``inputs`` name, each once, in an order that depends on their names only.

    A file is named by its path relative to the folder it was found in. If two inputs lead to the
    same name, parent folders are put before the later one until it is unique.

    Args:
        inputs: files, folders, globs, or ``-`` for a list of files and folders on standard input.
        ignored: a folder (our own overlays) whose files are left out.

    Raises:
        InputError: an input does not exist, or there is no image file.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    ignored = _absolute(ignored)
    for path, folder in (found for given in inputs for found in _expand(given)):
        if path not in names and not path.is_relative_to(ignored):
            names[path] = _unique_name(path, folder, taken)
            taken.add(names[path])
    if not names:
        raise InputError(f"No photos found in {', '.join(inputs)}; name image files, folders or globs.")
    return [Source(path, name) for path, name in names.items()]


def _expand(given: str) -> list[tuple[Path, Path]]:
    """Files of one input, sorted, each with the folder its name is relative to."""
    if given == "-":
        listed = [os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer]
        return sorted({found for line in listed if line for found in _walk(line)})
    if os.path.lexists(given):
        return sorted(_walk(given))
    matches = glob.glob(given, recursive=True) if glob.has_magic(given) else []
    if not matches:
        raise InputError(f"{given!r} does not exist, and no file matches it; check the spelling.")
    fixed = takewhile(lambda part: not glob.has_magic(part), Path(given).parts)
    folder = _absolute(Path(*fixed))
    return sorted({(path, folder) for match in matches for path, _ in _walk(match)})


def _walk(given: str) -> Iterator[tuple[Path, Path]]:
    """``given`` itself if it is a file, else the image files in the folder and below, without hidden ones."""
    start = _absolute(Path(given))
    if not start.is_dir():
        yield start, start.parent
        return
    unreadable: list[str] = []  # folders that cannot be listed; reading them fails later, one by one
    for folder, subfolders, names in os.walk(start, onerror=lambda error: unreadable.append(error.filename)):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(folder, name), start
    yield from ((Path(folder), start) for folder in unreadable)


def _absolute(path: Path) -> Path:
    """Without ``..``; symbolic links are kept, so that two links are two images of different names."""
    return Path(os.path.abspath(path))


def _unique_name(path: Path, folder: Path, taken: set[str]) -> str:
    parts = path.parts[1:]
    shortest = len(path.relative_to(folder).parts) if path.is_relative_to(folder) else 1
    for length in range(max(shortest, 1), len(parts) + 1):
        if (name := "/".join(parts[-length:])) not in taken:
            return name
    return next(name for copy in count(2) if (name := f"{copy}/{'/'.join(parts)}") not in taken)
