"""Data sets: the photos that captions files list, checked as far as a command needs."""

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from model import OptionsError
from training.data.caption_files import CaptionedPhoto, parse_captions
from training.data.splits import SPLITS
from training.data.validation import check_photos, describe_problems
from training.errors import DataError

Source = tuple[Path, Path]  # a captions file, and the folder of its photos


def pair_sources(captions: Sequence[Path], images: Sequence[Path]) -> list[Source]:
    """Captions files with the folders of their photos.

    Raises:
        OptionsError: there are not as many folders as files.
    """
    if len(captions) != len(images):
        raise OptionsError(
            f"There are {len(captions)} --captions and {len(images)} --images; "
            "every captions file needs the folder of its photos."
        )
    return list(zip(captions, images, strict=True))


def load_photos(
    sources: Iterable[Source],
    *,
    splits: Collection[str] = SPLITS,
    check: Literal["none", "exists", "decode"] = "exists",
    skip_problems: bool = False,
) -> list[CaptionedPhoto]:
    """The photos of ``splits`` that have captions, without their empty captions.

    Args:
        sources: what to load, in this order.
        splits: of SPLITS.
        check: what to check first: nothing, whether the folders and these photos exist, or everything that
            ``check_photos`` finds in all splits, which decodes every file.
        skip_problems: with "decode", leave out photos that have problems and list them on stderr.

    Raises:
        DataError: a captions file cannot be parsed, photos do not exist, or there are problems that are not
            to be skipped; the message lists them.
        OptionsError: a folder does not exist.
    """
    sources = list(sources)
    absent = [images for _, images in sources if not images.is_dir()]
    if check != "none" and absent:
        raise OptionsError(f"{absent[0]} is not a folder; --images must be the folder of the photos.")
    photos = [photo for file, images in sources for photo in parse_captions(file, images)]
    if check == "decode":
        photos = _without_problems(photos, skip_problems)
    loaded = [
        replace(photo, captions=tuple(filter(None, photo.captions)))
        for photo in photos
        if photo.split in splits and any(photo.captions)
    ]
    if check == "exists" and (missing := [one.path for one in loaded if not one.path.is_file()]):
        raise DataError(f"{len(missing)} of {len(loaded)} photos do not exist, {missing[0]} first.")
    return loaded


def _without_problems(photos: Sequence[CaptionedPhoto], skip_problems: bool) -> list[CaptionedPhoto]:
    problems = check_photos(photos)
    if problems and not skip_problems:
        raise DataError(
            f"the photos have problems.\n{describe_problems(problems)}\nFix them, or add --skip-problems."
        )
    if problems:
        print(f"Skipped because of problems:\n{describe_problems(problems)}", file=sys.stderr)
    excluded = {problem.photo for problem in problems}
    return [photo for photo in photos if photo not in excluded]
