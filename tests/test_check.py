"""python -m training.check: its report and its exit status."""

from pathlib import Path

import pytest
from conftest import draw_photo

from training import check

ROOT = Path(__file__).parents[1]


def write_set(folder: Path, rows: str, images: dict[str, int]) -> list[str]:
    """A captions file and its photos by seed; the options that name them."""
    folder.mkdir(exist_ok=True)
    (folder / "captions.csv").write_text(f"image,caption,split\n{rows}", encoding="utf-8")
    for name, seed in images.items():
        draw_photo(seed).save(folder / name)
    return ["--captions", str(folder / "captions.csv"), "--images", str(folder)]


@pytest.fixture
def sound(tmp_path):
    rows = "a.png,a dog,train\na.png,the dog,train\nb.png,a cat,val\nb.png,.,val\nc.png,a cat,test\n"
    return write_set(tmp_path / "sound", rows, {"a.png": 1, "b.png": 2, "c.png": 3})


def test_sound_set_is_counted_and_exits_0(sound, capsys):
    assert check.main(sound) == 0
    out = capsys.readouterr().out
    assert "train: 1 photos, 2 captions\n" in out
    assert "val: 1 photos, 2 captions, 1 of them empty\n" in out
    assert "test: 1 photos, 1 captions\n" in out
    assert "No problems found." in out


def test_problems_across_sets_are_listed_and_exit_1(sound, tmp_path, capsys):
    other = write_set(tmp_path / "other", "d.png,a cat,train\nnone.png,a dog,train\n", {"d.png": 3})
    assert check.main(other) == 1
    assert "d.png" not in capsys.readouterr().out
    assert check.main([*sound, *other]) == 1  # d is a copy of c, a test photo of the other set
    out = capsys.readouterr().out
    assert "none.png" in out
    assert "d.png" in out
    assert "train: 3 photos" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--captions", "nowhere.csv", "--images", "."], "nowhere.csv cannot be read"),
        (["--captions", "a.csv", "--captions", "b.csv", "--images", "."], "2 --captions and 1 --images"),
        (["--captions", str(ROOT / "README.md"), "--images", "."], "Karpathy JSON"),
    ],
)
def test_unusable_input_exits_2(arguments, named, capsys):
    assert check.main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("check: ")
    assert named in line
