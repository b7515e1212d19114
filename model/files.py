"""Writing and hashing files: atomic, durable writes, one writer per output folder, SHA-256 digests."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from model.errors import OutputFolderError

MAX_NAME_BYTES = 200  # of the file name kept in the temporary name, which must fit the same 255 bytes
LOCK = ".lock"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which replaces ``path`` atomically when the block ends without an exception.

    A crash or a power cut leaves the old file or the new one, never part of one.
    """
    temporary = temporary_path(path)
    try:
        with _durable(temporary) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8 with one newline at its end."""
    with replacing(path) as file:
        file.write(f"{text.rstrip()}\n".encode())


def write_temporary(path: Path, data: bytes) -> Path:
    """Write ``data`` durably to ``temporary_path(path)``, for the caller to move over ``path``."""
    temporary = temporary_path(path)
    with _durable(temporary) as file:
        file.write(data)
    return temporary


def temporary_path(path: Path) -> Path:
    """The file beside ``path`` that holds its new content until it is complete."""
    name = os.fsencode(path.name)[:MAX_NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{name}.part")


def append_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Append each record as a line of JSON; once this returns, they survive a crash."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("a", encoding="ascii") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is created if need be, for this process alone.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        OutputFolderError: another process holds the folder, or it cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise OutputFolderError(
            f"Another run is writing to {folder}; wait until it ends, or choose another output folder."
        ) from None
    except OSError as error:
        raise OutputFolderError(
            f"Cannot write to the output folder {folder} ({error.strerror}); choose another."
        ) from None
    try:
        yield
    finally:
        lock.release()


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_repr(value: object) -> str:
    """The SHA-256 of the ``repr`` of plain data, as the records of runs hold it, in hexadecimal."""
    return sha256_bytes(repr(value).encode())


@contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is on the disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
