"""load_photos: which photos of which sets are loaded, and what is checked first."""

from pathlib import Path

import pytest
from conftest import draw_photo

from model import OptionsError
from training.data.dataset import load_photos, pair_sources
from training.errors import DataError

ROWS = "a.png,a dog,train\na.png,.,train\nb.png,a cat,val\nc.png,!,val\nd.png,a dog,test\n"


@pytest.fixture
def source(tmp_path):
    """Two sound photos, one without captions (c) and one that is missing (d)."""
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        draw_photo(number).save(tmp_path / name)
    (tmp_path / "captions.csv").write_text(f"image,caption,split\n{ROWS}", encoding="utf-8")
    return tmp_path / "captions.csv", tmp_path


def names(photos):
    return [photo.path.name for photo in photos]


def test_empty_captions_and_photos_without_captions_are_dropped(source):
    photos = load_photos([source], check="none")
    assert names(photos) == ["a.png", "b.png", "d.png"]
    assert photos[0].captions == (("a", "dog"),)


def test_loaded_photos_can_be_read(source):
    [photo] = load_photos([source], splits=("val",))
    assert photo.captions == (("a", "cat"),)
    assert photo.read().tobytes() == draw_photo(1).tobytes()


@pytest.mark.parametrize("content", [None, b"", b"cut off"])
def test_unreadable_photo_is_named(source, content):
    [photo] = load_photos([source], splits=("val",))
    photo.path.unlink() if content is None else photo.path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.png"):
        photo.read()


def test_missing_photos_matter_only_in_the_loaded_splits(source):
    assert names(load_photos([source], splits=("train", "val"))) == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"^1 of 3 photos do not exist, .*d\.png first\.$"):
        load_photos([source])


def test_decoding_check_lists_all_problems_of_all_splits(source):
    with pytest.raises(DataError, match="--skip-problems") as caught:
        load_photos([source], splits=("train",), check="decode")
    assert "c.png" in str(caught.value)
    assert "d.png" in str(caught.value)


def test_skipped_problems_are_listed_on_stderr(source, capsys):
    assert names(load_photos([source], check="decode", skip_problems=True)) == ["a.png", "b.png"]
    listed = capsys.readouterr().err
    assert "c.png" in listed
    assert "d.png" in listed


def test_sets_are_loaded_in_order_each_from_its_folder(source, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("image,caption,split\na.png,a cat,train\n", encoding="utf-8")
    photos = load_photos([(other, tmp_path / "photos"), source], splits=("train",), check="none")
    assert [photo.path for photo in photos] == [tmp_path / "photos" / "a.png", tmp_path / "a.png"]


@pytest.mark.parametrize("check", ["exists", "decode"])
def test_missing_folder_is_named_instead_of_its_photos(source, tmp_path, check):
    with pytest.raises(OptionsError, match="absent is not a folder"):
        load_photos([source, (source[0], tmp_path / "absent")], check=check)


def test_files_and_folders_are_paired_in_order():
    files, folders = [Path("a"), Path("b")], [Path("c"), Path("d")]
    assert pair_sources(files, folders) == list(zip(files, folders, strict=True))
    with pytest.raises(OptionsError, match="2 --captions and 1 --images"):
        pair_sources(files, folders[:1])
