"""Files that are whole, or as they were: whatever dies while one is written, the power too.

A file has one writer at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

NAME_BYTES = 200  # of a file's name, so that the temporary name fits where it does


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when the block ends without an exception."""
    name = os.fsencode(path.name)[:NAME_BYTES].decode(errors="ignore")
    temporary = path.with_name(f".{name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Text, in UTF-8 and with a newline at its end."""
    with replacing(path) as file:
        file.write(f"{text.rstrip()}\n".encode())
