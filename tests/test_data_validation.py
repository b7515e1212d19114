"""check_photos: every planted problem is found, all at once, and nothing else."""

import random
from io import BytesIO

import numpy as np
import pytest
from conftest import draw_photo
from PIL import Image

from model import ImageError, open_image
from training.data.caption_files import CaptionedPhoto
from training.data.validation import check_photos, describe_problems

SPLIT_OF = {"train": 0, "restval": 0, "val": 1, "test": 2}  # how far from training


@pytest.fixture
def photo(tmp_path):
    """A photo whose file holds the image of this seed, or these bytes, or is missing."""

    def make(name: str, content: int | bytes | None, split: str = "train", captions=(("a", "dog"),)):
        path = tmp_path / name
        if isinstance(content, int):
            draw_photo(content).save(path)
        elif content is not None:
            path.write_bytes(content)
        return CaptionedPhoto(path=path, captions=captions, split=split)

    return make


def found_in(photos) -> list[tuple[str, str, str]]:
    """Name, split and kind of every problem."""
    problems = check_photos(photos)
    return [(one.photo.path.name, one.photo.split, one.kind) for one in problems]


def without(photos, problems) -> list[CaptionedPhoto]:
    return [photo for photo in photos if photo not in {problem.photo for problem in problems}]


def encoded(image: Image.Image, **options) -> bytes:
    stream = BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def test_sound_photos_have_no_problems(photo):
    splits = ("train", "restval", "val", "test")
    photos = [photo(f"{split}.png", number, split) for number, split in enumerate(splits)]
    assert check_photos(photos) == []
    assert check_photos([]) == []


def test_every_planted_problem_is_found(photo, tmp_path):
    (tmp_path / "folder.png").mkdir()
    whole = encoded(draw_photo(9, (200, 150)), format="JPEG")
    sound = photo("sound.png", 1)
    gap = photo("gap.png", 2, captions=(("a", "dog"), ()))
    held_out = photo("held_out.png", 3, "test")
    photos = [
        sound,
        photo("missing.png", None),
        photo("folder.png", None),
        photo("empty.png", b""),
        photo("text.png", b"no picture"),
        photo("cut.jpg", whole[: len(whole) // 2]),
        photo("small.png", encoded(draw_photo(1).resize((9, 9)), format="PNG")),
        gap,
        photo("wordless.png", 4, captions=((), ())),
        photo("bare.png", 5, captions=()),
        held_out,
        photo("leaked.png", 3, "restval"),
        photo("missing_and_wordless.png", None, captions=()),
    ]
    assert sorted(found_in(photos)) == [
        ("bare.png", "train", "uncaptioned"),
        ("cut.jpg", "train", "corrupt"),
        ("empty.png", "train", "corrupt"),
        ("folder.png", "train", "corrupt"),
        ("leaked.png", "restval", "leaked"),
        ("missing.png", "train", "missing"),
        ("missing_and_wordless.png", "train", "missing"),
        ("missing_and_wordless.png", "train", "uncaptioned"),
        ("small.png", "train", "corrupt"),
        ("text.png", "train", "corrupt"),
        ("wordless.png", "train", "uncaptioned"),
    ]
    assert without(photos, check_photos(photos)) == [sound, gap, held_out]


def test_leaked_photo_is_kept_in_its_evaluation_split(photo):
    twice = [photo("a.png", 1, split) for split in ("train", "test", "val")]
    assert found_in(twice) == [("a.png", "train", "leaked"), ("a.png", "val", "leaked")]


def test_copies_within_training_splits_are_allowed(photo):
    copies = [photo("a.png", 1), photo("b.png", 1, "restval"), photo("c.png", 2, "val")]
    assert check_photos([*copies, photo("d.png", 2, "val"), copies[0]]) == []


def test_unusable_copies_do_not_leak(photo):
    photos = [photo("a.png", b"x"), photo("b.png", b"x", "test"), photo("c.png", 1)]
    photos.append(photo("d.png", 1, "test", captions=((),)))
    assert {kind for _, _, kind in found_in(photos)} == {"corrupt", "uncaptioned"}


def test_no_problems_remain_without_the_problem_photos(photo):
    rng = random.Random(5)
    contents = [None, b"", b"x", *range(6)]
    captions = [(), ((),), (("a",),), (("a",), ())]
    photos = [
        photo(f"{number}.png", rng.choice(contents), rng.choice(list(SPLIT_OF)), rng.choice(captions))
        for number in range(120)
    ]
    problems = check_photos(photos)
    kept = without(photos, problems)
    assert len({problem.kind for problem in problems}) == 4
    assert check_photos(kept) == []
    splits_of: dict[bytes, set[int]] = {}
    for one in kept:
        splits_of.setdefault(one.path.read_bytes(), set()).add(SPLIT_OF[one.split])
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert len(splits_of) == 6  # every image survives in some split


@pytest.mark.parametrize(
    ("mode", "progressive"), [("RGB", False), ("RGB", True), ("L", False), ("CMYK", False)]
)
def test_large_jpegs_are_checked_like_open_image(photo, mode, progressive):
    noise = np.random.default_rng(3).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((1600, 1300)).convert(mode)
    whole = encoded(image, format="JPEG", progressive=progressive)
    rng = random.Random(4)
    broken = [whole[: rng.randrange(len(whole))] for _ in range(4)]
    flipped = []
    for _ in range(4):
        at = rng.randrange(len(whole))
        flipped.append(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    photos = [photo(f"{n}.jpg", data) for n, data in enumerate([whole, *broken, *flipped])]
    refused = []
    for one in photos:
        try:
            open_image(one.path.read_bytes())
        except ImageError:
            refused.append(one)
    assert [problem.photo for problem in check_photos(photos)] == refused
    assert photos[1] in refused
    assert photos[0] not in refused


def test_listed_problems_are_grouped_and_truncated(photo):
    photos = [photo(f"{number:02}.png", None) for number in range(32)]
    photos += [photo("held.png", 1, "val"), photo("leak.png", 1), photo("bad.png", b"x")]
    text = describe_problems(check_photos(photos))
    groups = [line for line in text.splitlines() if not line.startswith("  ")]
    assert [group.split(": ")[-1] for group in groups] == ["32", "1", "1"]
    assert "19.png" in text
    assert "20.png" not in text
    assert "and 12 more" in text
    [leak] = [line for line in text.splitlines() if "leak.png" in line]
    assert "train" in leak
    assert "val as" in leak
    assert "held.png" in leak
    assert describe_problems([]) == ""
