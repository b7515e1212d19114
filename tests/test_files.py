"""Files are whole, or as they were."""

import contextlib

import pytest

from model.files import replacing, write_whole


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "kept.txt"
    write_whole(path, "before\n\n")
    with contextlib.suppress(InterruptedError), replacing(path) as file:
        file.write(b"half of what")
        raise InterruptedError
    assert path.read_bytes() == b"before\n"


def test_nobody_sees_it_before_it_is_whole(tmp_path):
    path = tmp_path / "new.txt"
    with replacing(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("letter", ["a", "é", "猫"])
def test_every_name_that_fits_can_be_written(tmp_path, letter):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_whole(path, "猫")
    assert path.read_text(encoding="utf-8") == "猫\n"
