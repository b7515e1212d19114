"""METEOR and SPICE: pycocoevalcap's scores where Java runs; otherwise a message and no process left."""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from training.errors import JavaError
from training.evaluation import java_metrics
from training.evaluation.java_metrics import java_score

CAPTIONS = ["a dog runs", "a cat sits"]
REFERENCES = [["the dog runs", "a dog"], ["a cat sits", "the cat"]]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Replaces ``java`` by a program of the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(program: str, interpreter: str = "/bin/sh") -> None:
        java = folder / "java"
        java.write_text(f"#!{interpreter}\n{program}\n")
        java.chmod(0o755)

    return write


@pytest.fixture
def spice_models(tmp_path, monkeypatch):
    monkeypatch.setattr(java_metrics, "SPICE_LIBRARY", tmp_path)
    for name in java_metrics.SPICE_MODELS:
        (tmp_path / name).touch()
    downloaded = "/pycocoevalcap/spice/get_stanford_models.py"
    assert any(Path(f"{folder}{downloaded}").is_file() for folder in sys.path)
    program = java_metrics._PROGRAM.replace(
        "import importlib",
        "import pycocoevalcap.spice.spice as s; s.get_stanford_models = int\nimport importlib",
    )
    monkeypatch.setattr(java_metrics, "_PROGRAM", program)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def error_of(name: str = "meteor") -> str:
    with pytest.raises(JavaError) as error:
        java_score(name, CAPTIONS, REFERENCES)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@needs_java
def test_meteor_of_copied_and_unrelated_captions(monkeypatch):
    """One call, because a Java that reads METEOR's tables takes seconds: both must count, in any locale."""
    monkeypatch.setenv("LC_ALL", "C")  # in which the dog and the cat would be the same question mark
    score = java_score("meteor", ["the dog runs", "犬", "zebra"], [["a cat", "the dog runs"], ["猫"], ["猫"]])
    assert 45 < score < 65  # more if 犬 and 猫 were read as one character


@pytest.mark.parametrize("name", java_metrics.JAVA_METRICS)
def test_missing_java_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install a Java runtime" in error_of(name)


@pytest.mark.parametrize(
    "program", ["exit 3", "kill -9 $$", "echo hello", "echo 1 2 3; echo 4 5; echo nan; echo nan; echo nan"]
)
def test_failing_java_is_one_sentence(fake_java, program):
    fake_java(program)
    assert "check that" in error_of()


def test_java_that_cannot_be_started_is_one_sentence(fake_java):
    fake_java("", interpreter="/nowhere")
    assert "No such file" in error_of()


def test_hanging_java_is_killed_with_its_children(fake_java, tmp_path, monkeypatch):
    fake_java(f"/bin/sleep 600 & echo $$ $! > {tmp_path / 'pids'}; wait")
    monkeypatch.setattr(java_metrics, "START_TIMEOUT", 4.0)
    assert "no answer within 5 s" in error_of()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert wait_for(lambda: not any(map(is_running, pids)))


def test_ctrl_c_ends_java(fake_java, tmp_path):
    pid = tmp_path / "pid"
    fake_java(f"echo $$ > {pid}.new; /bin/mv {pid}.new {pid}; exec /bin/sleep 600")

    def press_ctrl_c():
        if wait_for(pid.exists, seconds=60):
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may ignore it
    presser = threading.Thread(target=press_ctrl_c)
    presser.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            java_score("meteor", CAPTIONS, REFERENCES)
    finally:
        presser.join()
        signal.signal(signal.SIGINT, handler)
    assert wait_for(lambda: not is_running(int(pid.read_text())))


def test_spice_without_its_models_starts_nothing(fake_java, tmp_path, monkeypatch):
    fake_java(f"echo started > {tmp_path}/started")
    monkeypatch.setattr(java_metrics, "SPICE_LIBRARY", tmp_path)
    assert "pycocoevalcap.spice.get_stanford_models" in error_of("spice")
    assert not (tmp_path / "started").exists()


# Answers as SPICE does: 1 for a caption that is a reference, otherwise the image's number in hundredths.
SPICE = """
import json, sys
print("Loaded")
asked = json.load(open(sys.argv[4]))
found = [
    {"image_id": one["image_id"],
     "scores": {"All": {"f": 1.0 if one["test"] in one["refs"] else one["image_id"] / 100}}}
    for one in asked
]
json.dump(found, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


@pytest.mark.skipif(
    not os.access(Path(java_metrics.pycocoevalcap.__path__[0]) / "spice", os.W_OK),
    reason="pycocoevalcap keeps temporary files in its own folder",
)
def test_spice_is_the_mean_over_photos(fake_java, spice_models):
    fake_java(SPICE, interpreter=sys.executable)
    references = [["a dog"], ["cats"], ["men", "a man"], ["y"]]
    assert java_score("spice", ["a dog", "a cat", "a man", "x"], references) == 51
