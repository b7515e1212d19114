"""Which photos a command line leads to, and what each of them is called in the output.

Knows names and bytes; what the bytes are is for others to find out.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from model import ImageLimitError
from service.errors import InputError

# What counts as a photo inside a folder. The second line cannot be captioned, but ends in
# errors.jsonl rather than being passed over in silence.
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp")
    + (".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl", ".jp2")
)
# Above the largest accepted picture without compression, so that no file fills the memory unread.
MAX_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Source:
    """A photo to caption and the name it has in every output."""

    path: Path
    image: str  # relative, with forward slashes, different for every source

    def read(self) -> bytes:
        """The content of the file.

        Raises:
            OSError: it cannot be read.
            ImageLimitError: it is larger than any accepted picture can be.
        """
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ImageLimitError(
                    f"The file has {size:,} bytes; at most {MAX_FILE_BYTES:,} are accepted."
                )
            return file.read()


def find_sources(inputs: Sequence[str], passed_over: Path) -> list[Source]:
    """The photos that ``inputs`` lead to, each once, in an order that depends on their names only.

    A photo is called by its path relative to the folder it was found in. Where two inputs hold
    the same name, the later one is lengthened by its parent folders until it differs.

    Args:
        inputs: files, folders, globs, or ``-`` for a list of files and folders on standard input.
        passed_over: a folder (our own overlays) whose content is never taken for photos.

    Raises:
        InputError: an input does not exist, or no input leads to a photo.
    """
    images: dict[Path, str] = {}
    taken: set[str] = set()
    own = _absolute(passed_over)
    for path, folder in (found for given in inputs for found in _expand(given)):
        if path not in images and not path.is_relative_to(own):
            images[path] = _free_name(path, folder, taken)
            taken.add(images[path])
    if not images:
        raise InputError(f"There are no photos in {', '.join(inputs)}; name files, folders or globs.")
    return [Source(path, image) for path, image in images.items()]


def _expand(given: str) -> list[tuple[Path, Path]]:
    """Files that one INPUT leads to, sorted, each with the folder its name is relative to."""
    if given == "-":
        listed = [os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer]
        return sorted({found for line in listed if line for found in _walk(line)})
    if os.path.lexists(given):
        return sorted(_walk(given))
    matches = glob.glob(given, recursive=True) if glob.has_magic(given) else []
    if not matches:
        raise InputError(f"There is no file, folder or match for {given!r}; check the spelling.")
    fixed = takewhile(lambda part: not glob.has_magic(part), Path(given).parts)
    folder = _absolute(Path(*fixed))
    return sorted({(path, folder) for match in matches for path, _ in _walk(match)})


def _walk(given: str) -> Iterator[tuple[Path, Path]]:
    """``given`` itself if it is a file, else the pictures in the folder and below; hidden ones left out."""
    start = _absolute(Path(given))
    if not start.is_dir():
        yield start, start.parent
        return
    unreadable: list[str] = []  # folders that cannot be listed become failures when they are "read"
    for folder, subfolders, names in os.walk(start, onerror=lambda error: unreadable.append(error.filename)):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith("."):
                yield Path(folder, name), start
    yield from ((Path(folder), start) for folder in unreadable)


def _absolute(path: Path) -> Path:
    """Without ``..``, but with symbolic links: two links are two photos of different names."""
    return Path(os.path.abspath(path))


def _free_name(path: Path, folder: Path, taken: set[str]) -> str:
    parts = path.parts[1:]
    shortest = len(path.relative_to(folder).parts) if path.is_relative_to(folder) else 1
    for length in range(max(shortest, 1), len(parts) + 1):
        if (name := "/".join(parts[-length:])) not in taken:
            return name
    return next(name for copy in count(2) if (name := f"{copy}/{'/'.join(parts)}") not in taken)
