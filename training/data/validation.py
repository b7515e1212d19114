"""Checking captioned photos before anything is trained on them."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from model import ImageError, open_image
from model.files import sha256_bytes
from model.preprocess import MAX_PIXELS, MAX_SIDE
from training.data.caption_files import CaptionedPhoto
from training.data.splits import SPLITS

MISSING, CORRUPT, UNCAPTIONED, LEAKED = "missing", "corrupt", "uncaptioned", "leaked"
TITLES = {
    MISSING: "Missing photos",
    CORRUPT: "Photos that cannot be decoded",
    UNCAPTIONED: "Photos without captions",
    LEAKED: "Photos leaked across splits",
}
MAX_NAMES = 20  # listed of every kind of problem

LARGE = 2_000_000  # pixels from which decoding a whole JPEG takes too long
THREADS = min(4, os.cpu_count() or 1)
CHUNK = 64  # photos; the check finishes these after Ctrl-C
PROGRESS_DELAY = 2  # seconds before a progress bar is shown

# Of copies in different splits, those furthest from training are kept.
_DISTANCE_FROM_TRAINING = {"train": 0, "restval": 0, "val": 1, "test": 2}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A photo that cannot be used, and why."""

    photo: CaptionedPhoto
    kind: str  # a key of TITLES
    detail: str = ""


class _File(NamedTuple):
    """What is at the path of a photo."""

    sha256: str = ""  # of its bytes
    kind: str | None = None  # of its problem
    detail: str = ""


def check_photos(photos: Sequence[CaptionedPhoto]) -> list[Problem]:
    """Everything wrong with photos as ``parse_captions`` gives them; decodes every file, with a progress bar.

    A photo may have several problems. If photos in different splits have the same bytes, all but those in
    the split furthest from training are problems; train and restval count as one split. Photos with another
    problem do not count as copies.
    """
    files = _inspect(list(dict.fromkeys(photo.path for photo in photos)))
    problems = []
    sound = []
    for photo in photos:
        file = files[photo.path]
        if file.kind:
            problems.append(Problem(photo=photo, kind=file.kind, detail=file.detail))
        if not any(photo.captions):
            problems.append(Problem(photo=photo, kind=UNCAPTIONED))
        elif not file.kind:
            sound.append(photo)
    return problems + _find_leaks(sound, files)


def describe_problems(problems: Sequence[Problem]) -> str:
    """The problems by kind as lines of text, at most ``MAX_NAMES`` photos of each kind."""
    lines = []
    for kind, title in TITLES.items():
        of_kind = [problem for problem in problems if problem.kind == kind]
        if of_kind:
            lines.append(f"{title}: {len(of_kind)}")
        for problem in of_kind[:MAX_NAMES]:
            detail = f": {problem.detail}" if problem.detail else ""
            lines.append(f"  {problem.photo.path}{detail}")
        if len(of_kind) > MAX_NAMES:
            lines.append(f"  and {len(of_kind) - MAX_NAMES} more")
    return "\n".join(lines)


def describe_splits(photos: Sequence[CaptionedPhoto]) -> str:
    """The numbers of photos, captions and empty captions in every split, a line each."""
    lines = []
    for split in SPLITS:
        captions = [photo.captions for photo in photos if photo.split == split]
        empty = sum(not caption for of_photo in captions for caption in of_photo)
        note = f", {empty} of them empty" if empty else ""
        lines.append(f"{split}: {len(captions)} photos, {sum(map(len, captions))} captions{note}")
    return "\n".join(lines)


def _inspect(paths: Sequence[Path]) -> dict[Path, _File]:
    """What is at every path. Threads suffice: reading, hashing and decoding all release the lock."""
    found: list[_File] = []
    with (
        tqdm(total=len(paths), desc="checking", unit="photo", leave=False, delay=PROGRESS_DELAY) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for start in range(0, len(paths), CHUNK):
            found += pool.map(_inspect_one, paths[start : start + CHUNK])
            bar.update(len(found) - start)
    return dict(zip(paths, found, strict=True))


def _inspect_one(path: Path) -> _File:
    try:
        data = path.read_bytes()
        if not _is_sound_large_jpeg(data):
            open_image(data)
    except (FileNotFoundError, NotADirectoryError):
        return _File(kind=MISSING)
    except OSError as error:
        return _File(kind=CORRUPT, detail=str(error.strerror))
    except ImageError as error:
        return _File(kind=CORRUPT, detail=str(error))
    return _File(sha256=sha256_bytes(data))


def _is_sound_large_jpeg(data: bytes) -> bool:
    """Whether this is a JPEG of a camera's size, within the limits of ``open_image``, that can be decoded.

    It is decoded at an eighth of its size, which reads every byte in a fraction of the time. Files that do
    not pass are left to ``open_image``.
    """
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            if not LARGE <= width * height <= MAX_PIXELS or max(image.size) > MAX_SIDE:
                return False
            image.draft("RGB", (width // 8, height // 8))
            image.load()
    except Exception:  # open_image says what is wrong
        return False
    return True


def _find_leaks(photos: Sequence[CaptionedPhoto], files: Mapping[Path, _File]) -> list[Problem]:
    copies = defaultdict(list)
    for photo in photos:
        copies[files[photo.path].sha256].append(photo)
    problems = []
    for same in copies.values():
        kept = max(same, key=lambda photo: _DISTANCE_FROM_TRAINING[photo.split])
        for photo in same:
            if _DISTANCE_FROM_TRAINING[photo.split] < _DISTANCE_FROM_TRAINING[kept.split]:
                detail = f"in {photo.split}, and in {kept.split} as {kept.path}"
                problems.append(Problem(photo=photo, kind=LEAKED, detail=detail))
    return problems
