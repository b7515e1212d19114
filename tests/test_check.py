"""The data check: whatever was planted is found, all of it at once, and the rest is what is trained on."""

import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_photo
from PIL import Image

from model import ImageError, OptionsError, open_image
from training.data import validation as check
from training.data.caption_files import CaptionedPhoto
from training.data.validation import Problem, check_photos, describe_problems, read_checked, usable
from training.errors import DataError

ROOT = Path(__file__).parents[1]
SPLIT_OF = {"train": 0, "restval": 0, "val": 1, "test": 2}  # how far from training


@pytest.fixture
def photo(tmp_path):
    """A photo whose file holds the picture ``seed``, or these bytes, or is not there."""

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


def encoded(image: Image.Image, **options) -> bytes:
    stream = BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def test_sound_photos_have_no_problems(photo):
    splits = ("train", "restval", "val", "test")
    photos = [photo(f"{split}.png", number, split) for number, split in enumerate(splits)]
    assert check_photos(photos) == []
    assert usable(photos, []) == photos
    assert check_photos([]) == []


def test_all_problems_are_found_in_one_pass(photo, tmp_path):
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
        photo("untold.png", 4, captions=((), ())),
        photo("bare.png", 5, captions=()),
        held_out,
        photo("leaked.png", 3, "restval"),
        photo("missing_and_untold.png", None, captions=()),
    ]
    assert sorted(found_in(photos)) == [
        ("bare.png", "train", "uncaptioned"),
        ("cut.jpg", "train", "damaged"),
        ("empty.png", "train", "damaged"),
        ("folder.png", "train", "damaged"),
        ("leaked.png", "restval", "leaked"),
        ("missing.png", "train", "missing"),
        ("missing_and_untold.png", "train", "missing"),
        ("missing_and_untold.png", "train", "uncaptioned"),
        ("small.png", "train", "damaged"),
        ("text.png", "train", "damaged"),
        ("untold.png", "train", "uncaptioned"),
    ]
    kept = usable(photos, check_photos(photos))
    assert [one.path.name for one in kept] == ["sound.png", "gap.png", "held_out.png"]
    assert kept[1].captions == (("a", "dog"),)


def test_photo_in_two_splits_stays_in_scored_split(photo):
    twice = [photo("a.png", 1, split) for split in ("train", "test", "val")]
    assert found_in(twice) == [("a.png", "train", "leaked"), ("a.png", "val", "leaked")]
    assert usable(twice, check_photos(twice)) == [twice[1]]


def test_duplicates_within_a_split_are_allowed(photo):
    copies = [photo("a.png", 1), photo("b.png", 1, "restval"), photo("c.png", 2, "val")]
    assert check_photos([*copies, photo("d.png", 2, "val"), copies[0]]) == []


def test_unusable_duplicates_do_not_leak(photo):
    photos = [photo("a.png", b"x"), photo("b.png", b"x", "test"), photo("c.png", 1)]
    photos.append(photo("d.png", 1, "test", captions=((),)))
    assert {kind for _, _, kind in found_in(photos)} == {"damaged", "uncaptioned"}


def test_skipping_problems_leaves_sound_photos(photo):
    rng = random.Random(5)
    contents = [None, b"", b"x", *range(6)]
    captions = [(), ((),), (("a",),), (("a",), ())]
    photos = [
        photo(f"{number}.png", rng.choice(contents), rng.choice(list(SPLIT_OF)), rng.choice(captions))
        for number in range(120)
    ]
    problems = check_photos(photos)
    kept = usable(photos, problems)
    assert len({problem.kind for problem in problems}) == 4
    assert check_photos(kept) == []
    splits_of: dict[bytes, set[int]] = {}
    for one in kept:
        splits_of.setdefault(one.path.read_bytes(), set()).add(SPLIT_OF[one.split])
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert len(splits_of) == 6  # of every picture that has a caption something is left


@pytest.mark.parametrize(
    ("mode", "progressive"), [("RGB", False), ("RGB", True), ("L", False), ("CMYK", False)]
)
def test_large_photos_are_checked_as_training_reads_them(photo, mode, progressive):
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


def test_problem_list_is_grouped_and_truncated(photo):
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


def write_set(folder: Path, rows: str, pictures: dict[str, int]) -> list[str]:
    """A captions file and its photos; the options that name them."""
    folder.mkdir(exist_ok=True)
    (folder / "captions.csv").write_text(f"image,caption,split\n{rows}", encoding="utf-8")
    for name, seed in pictures.items():
        draw_photo(seed).save(folder / name)
    return ["--captions", str(folder / "captions.csv"), "--images", str(folder)]


@pytest.fixture
def sound(tmp_path):
    rows = "a.png,a dog,train\na.png,the dog,train\nb.png,a cat,val\nb.png,.,val\nc.png,a cat,test\n"
    return write_set(tmp_path / "sound", rows, {"a.png": 1, "b.png": 2, "c.png": 3})


def test_sound_data_exits_0_with_counts(sound, capsys):
    assert check.main(sound) == 0
    out = capsys.readouterr().out
    assert "train: 1 photos, 2 captions\n" in out
    assert "val: 1 photos, 2 captions, 1 of them empty\n" in out
    assert "test: 1 photos, 1 captions\n" in out


def test_problems_of_all_sets_exit_1(sound, tmp_path, capsys):
    other = write_set(tmp_path / "other", "d.png,a cat,train\nnone.png,a dog,train\n", {"d.png": 3})
    assert check.main(other) == 1
    assert "d.png" not in capsys.readouterr().out
    assert check.main([*sound, *other]) == 1  # d is c, which the other set tests on
    out = capsys.readouterr().out
    assert "none.png" in out
    assert "d.png" in out
    assert "train: 3 photos" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--captions", "nowhere.csv", "--images", "."], "nowhere.csv cannot be read"),
        (["--captions", "a.csv", "--captions", "b.csv", "--images", "."], "2 --captions and 1 --images"),
        (["--captions", str(ROOT / "README.md"), "--images", "."], "Karpathy JSON"),
        (["--captions", "a.csv"], "--images"),
        ([], "--captions"),
    ],
)
def test_invalid_usage_exits_2(arguments, said, capsys):
    try:
        status = check.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert said in capsys.readouterr().err


def test_help_explains_exit_status(capsys):
    with pytest.raises(SystemExit) as stop:
        check.main(["--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    for word in ("Karpathy JSON", "COCO", "Flickr", "CSV", "Exit status", "--captions", "--images"):
        assert word in told


def paths_of(options: list[str]) -> tuple[list[Path], list[Path]]:
    return [Path(options[1])], [Path(options[3])]


def test_training_refuses_problems_unless_skipped(tmp_path, capsys):
    rows = "a.png,a dog,train\nnone.png,a dog,train\nb.png,a cat,val\nc.png,.,val\n"
    paths = paths_of(write_set(tmp_path / "set", rows, {"a.png": 1, "b.png": 2, "c.png": 3}))
    with pytest.raises(DataError, match="--skip-problems") as caught:
        read_checked(*paths, skip_problems=False)
    assert "none.png" in str(caught.value)
    assert "c.png" in str(caught.value)
    kept = read_checked(*paths, skip_problems=True)
    assert [one.path.name for one in kept] == ["a.png", "b.png"]
    told = capsys.readouterr().err
    assert "none.png" in told
    assert "c.png" in told


def test_empty_captions_are_dropped(sound):
    kept = read_checked(*paths_of(sound), skip_problems=False)
    assert [(one.split, len(one.captions)) for one in kept] == [("train", 2), ("val", 1), ("test", 1)]


def test_captions_without_images_are_refused_first():
    with pytest.raises(OptionsError, match="1 --captions and 0 --images"):
        read_checked([Path("nowhere")], [], skip_problems=True)


def test_problem_names_its_photo(photo):
    missing = photo("a.png", None)
    assert check_photos([missing]) == [Problem(photo=missing, kind="missing")]
