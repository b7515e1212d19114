"""Whether captioned photos can be trained on: everything that is wrong with them, before any training.

    python -m training.check --captions captions.json --images photos/

says how many photos and captions each split has, and lists the photos that do not exist, that
cannot be decoded, that have no caption, and those that are trained on but held out elsewhere, by the bytes of
their files. For several sets at once give --captions and --images several times, in pairs.

Exit status: 0 nothing is wrong, 1 there are problems, 2 wrong usage, or a captions file that cannot be read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from model import CaptioningError, ImageError, open_image
from model.preprocess import MAX_PIXELS, MAX_SIDE
from training.cli import add_set_options
from training.data.caption_files import SPLITS, CaptionedPhoto, list_sets, with_captions
from training.errors import DataError

MISSING, DAMAGED, UNCAPTIONED, LEAKED = "missing", "damaged", "uncaptioned", "leaked"
TITLES = {
    MISSING: "Photos that do not exist",
    DAMAGED: "Photos that cannot be read",
    UNCAPTIONED: "Photos without a caption that has words",
    LEAKED: "Photos that are held out elsewhere, which would make scores lie",
}
NAMES_SHOWN = 20  # of every kind of problem

LARGE = 2_000_000  # pixels from which decoding a JPEG in full would take too long
THREADS = min(4, os.cpu_count() or 1)
CHUNK = 64  # photos; as many are waited for after Ctrl-C
DELAY = 2  # seconds; a check that is over by then shows no progress bar

# Of copies in different splits one is kept: what is scored stays, what is learnt from goes.
_HELD_OUT = {"train": 0, "restval": 0, "val": 1, "test": 2}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A photo that cannot be used, and why."""

    photo: CaptionedPhoto
    kind: str  # a key of TITLES
    detail: str = ""  # what there is to say of this one


class _File(NamedTuple):
    """What was found where a photo should be."""

    digest: bytes = b""  # sha256 of its bytes
    kind: str | None = None  # of its problem
    detail: str = ""


def check_photos(photos: Sequence[CaptionedPhoto]) -> list[Problem]:
    """Everything wrong with photos as ``list_sets`` gives them; decodes every file, with a progress bar.

    A photo may have several problems. Of one that is found in several splits, listed twice or as files
    of the same bytes, all entries but those of the split furthest from training are problems; train and
    restval count as one split. Photos with another problem are nobody's copies.
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


def usable(photos: Sequence[CaptionedPhoto], problems: Sequence[Problem]) -> list[CaptionedPhoto]:
    """The photos without problems, without their empty captions.

    Of a photo that lies in several splits, the copy that would have been trained on is gone.
    """
    refused = {problem.photo for problem in problems}
    return with_captions(photo for photo in photos if photo not in refused)


def read_checked(
    captions: Sequence[Path], images: Sequence[Path], *, skip_problems: bool
) -> list[CaptionedPhoto]:
    """The photos of all splits that captions files list, after a check of every one.

    Args:
        captions: files in any form of ``list_sets``.
        images: for each, the folder that its photos lie in.
        skip_problems: leave photos with problems out, and list them on stderr.

    Raises:
        DataError: there are problems, and they are not to be skipped; the message lists them all.
        DataError, OptionsError: as in ``list_sets``.
    """
    photos = list_sets(captions, images)
    problems = check_photos(photos)
    if not problems:
        return usable(photos, problems)
    listed = describe_problems(problems)
    if not skip_problems:
        raise DataError(f"the photos have problems.\n{listed}\nMend them, or add --skip-problems.")
    print(f"Left out for their problems:\n{listed}", file=sys.stderr)
    return usable(photos, problems)


def describe_problems(problems: Sequence[Problem]) -> str:
    """The problems as lines of text by kind, of each kind at most ``NAMES_SHOWN`` photos."""
    lines = []
    for kind, title in TITLES.items():
        of_kind = [problem for problem in problems if problem.kind == kind]
        if of_kind:
            lines.append(f"{title}: {len(of_kind)}")
        for problem in of_kind[:NAMES_SHOWN]:
            detail = f": {problem.detail}" if problem.detail else ""
            lines.append(f"  {problem.photo.path}{detail}")
        if len(of_kind) > NAMES_SHOWN:
            lines.append(f"  and {len(of_kind) - NAMES_SHOWN} more")
    return "\n".join(lines)


def describe_splits(photos: Sequence[CaptionedPhoto]) -> str:
    """How many photos and captions every split has, a line a split, and how many captions are empty."""
    lines = []
    for split in SPLITS:
        of_split = [photo.captions for photo in photos if photo.split == split]
        captions = sum(len(written) for written in of_split)
        empty = sum(not caption for written in of_split for caption in written)
        note = f", {empty} of them empty" if empty else ""
        lines.append(f"{split}: {len(of_split)} photos, {captions} captions{note}")
    return "\n".join(lines)


def _inspect(paths: Sequence[Path]) -> dict[Path, _File]:
    """What lies at every path. Threads suffice: reading, hashing and decoding all let others run."""
    found: list[_File] = []
    with (
        tqdm(total=len(paths), desc="checking", unit="photo", leave=False, delay=DELAY) as bar,
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
        return _File(kind=DAMAGED, detail=str(error.strerror))
    except ImageError as error:
        return _File(kind=DAMAGED, detail=str(error))
    return _File(digest=sha256(data).digest())


def _is_sound_large_jpeg(data: bytes) -> bool:
    """Whether this is a JPEG of a camera's size, within the limits of ``open_image``, that can be decoded.

    It is decoded at an eighth of its size: every byte is read, in a fraction of the time. Whatever does not
    pass here is for ``open_image`` to judge.
    """
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            if not LARGE <= width * height <= MAX_PIXELS or max(image.size) > MAX_SIDE:
                return False
            image.draft("RGB", (width // 8, height // 8))
            image.load()
    except Exception:  # open_image knows which there are, and says it better
        return False
    return True


def _find_leaks(photos: Sequence[CaptionedPhoto], files: Mapping[Path, _File]) -> list[Problem]:
    copies = defaultdict(list)
    for photo in photos:
        copies[files[photo.path].digest].append(photo)
    problems = []
    for alike in copies.values():
        kept = max(alike, key=_distance_from_training)
        for photo in alike:
            if _distance_from_training(photo) < _distance_from_training(kept):
                detail = f"in {photo.split}, and in {kept.split} as {kept.path}"
                problems.append(Problem(photo=photo, kind=LEAKED, detail=detail))
    return problems


def _distance_from_training(photo: CaptionedPhoto) -> int:
    return _HELD_OUT[photo.split]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        photos = list_sets(chosen.captions, chosen.images)
        print(describe_splits(photos))
        problems = check_photos(photos)
    except KeyboardInterrupt:
        print("\ncheck: stopped.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    print(describe_problems(problems) or "Nothing is wrong.")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_set_options(parser.add_argument_group("data"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
