"""METEOR and SPICE: pycocoevalcap's scores where Java runs; otherwise a message and no process left."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from training.errors import JavaError
from training.evaluation import java_metrics
from training.evaluation.java_metrics import java_score

ROOT = Path(__file__).parents[1]
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
def test_meteor_of_copied_and_unrelated_captions():
    assert java_score("meteor", [texts[0] for texts in REFERENCES], REFERENCES) == 100
    assert 0 < java_score("meteor", CAPTIONS, REFERENCES) < 100
    assert java_score("meteor", ["zebra"], [["a dog"]]) == 0


@needs_java
def test_meteor_does_not_depend_on_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")  # in which both would be question marks
    assert java_score("meteor", ["犬"], [["猫"]]) == 0


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


@pytest.mark.parametrize(
    "program", ["echo $$ > {pid}; exec /bin/sleep 600", "/bin/sleep 600 & echo $! > {pid}; wait"]
)
def test_hanging_java_is_killed_with_its_children(fake_java, tmp_path, monkeypatch, program):
    fake_java(program.format(pid=tmp_path / "pid"))
    monkeypatch.setattr(java_metrics, "START_TIMEOUT", 4.0)
    assert "no answer within 5 s" in error_of()
    assert wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_ctrl_c_ends_java(fake_java, tmp_path):
    pid = tmp_path / "pid"
    fake_java(f"echo $$ > {pid}.new; /bin/mv {pid}.new {pid}; exec /bin/sleep 600")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # pytest may ignore it
        "from training.evaluation.java_metrics import java_score\n"
        f"java_score('meteor', {CAPTIONS!r}, {REFERENCES!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        assert wait_for(pid.exists, seconds=120)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
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
