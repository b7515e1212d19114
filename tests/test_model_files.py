"""Atomic writes, locks of output folders, digests."""

import contextlib
import multiprocessing
import time
from hashlib import sha256

import pytest

from model import OutputFolderError
from model.files import append_lines, locked, replacing, sha256_bytes, sha256_file, sha256_repr, write_whole


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    write_whole(path, "before\n\n")
    with contextlib.suppress(InterruptedError), replacing(path) as file:
        file.write(b"half of what")
        raise InterruptedError
    assert path.read_bytes() == b"before\n"


def test_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "new.txt"
    with replacing(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("letter", ["a", "é", "猫"])
def test_longest_file_names_can_be_written(tmp_path, letter):
    path = tmp_path / (letter * (255 // len(letter.encode())))
    write_whole(path, "猫")
    assert path.read_text(encoding="utf-8") == "猫\n"


def test_append_lines_adds_a_line_a_record(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, [{"a": 1}])
    append_lines(path, [{"b": "猫"}, {}])
    assert path.read_bytes() == b'{"a": 1}\n{"b": "\\u732b"}\n{}\n'


def test_digests_are_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert sha256_bytes(b"content") == sha256_file(tmp_path / "file") == sha256(b"content").hexdigest()
    assert sha256_repr(("a", 1)) == sha256(b"('a', 1)").hexdigest()


def test_folder_can_be_locked_again_once_released(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "new" / "folder"):
            assert (tmp_path / "new" / "folder").is_dir()


def test_locked_folder_refuses_a_second_process_until_killed(tmp_path):
    fork = multiprocessing.get_context("fork")
    is_held = fork.Event()

    def hold() -> None:
        with locked(tmp_path):
            is_held.set()
            time.sleep(60)

    process = fork.Process(target=hold)
    process.start()
    try:
        assert is_held.wait(60)
        with (
            pytest.raises(OutputFolderError, match="Another run is writing to .*; wait until it ends"),
            locked(tmp_path),
        ):
            pytest.fail("held twice")
    finally:
        process.kill()
        process.join()
    with locked(tmp_path):
        pass


def test_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputFolderError, match="Cannot write to the output folder"),
        locked(tmp_path / "file"),
    ):
        pytest.fail("a file was locked")
