"""METEOR and SPICE: equal to pycocoevalcap's where Java is, else a sentence and nothing left over."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from pycocoevalcap.meteor.meteor import Meteor

from training.errors import JavaError
from training.evaluation import java_metrics
from training.evaluation.java_metrics import meteor, spice
from training.evaluation.metrics import Tally

ROOT = Path(__file__).parents[1]
WORDS = [
    "a",
    "dog",
    "dogs",
    "puppy",
    "cat",
    "runs",
    "running",
    "sits",
    "on",
    "grass",
    "the",
    "brown",
    "water",
    "over",
    "two",
    "man",
    "men",
    "child",
    "été",
]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")

CAPTIONS = ["a dog runs", "a cat sits"]
REFERENCES = [["the dog runs", "a dog"], ["a cat sits", "the cat"]]


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Makes ``java`` a program of the test's own, and the only one there is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(program: str, interpreter: str = "/bin/sh") -> None:
        java = folder / "java"
        java.write_text(f"#!{interpreter}\n{program}\n")
        java.chmod(0o755)

    return write


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


def assert_sentence(error: pytest.ExceptionInfo[JavaError], named: str) -> None:
    text = str(error.value)
    assert named in text
    assert "\n" not in text
    assert text.endswith(".")


@needs_java
def test_meteor_equals_pycocoevalcap():
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))

    references = [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(40)]
    # Some are references word for word, which METEOR adds up in its own way, and some are odd.
    candidates = [rng.choice([rng.choice(texts), sentence()]) for texts in references]
    candidates[:5] = ["", "zebra", "a", "dog " * 30, "a dog and a dog"]
    published = Meteor()
    value, _ = published.compute_score(
        dict(enumerate(references)), {number: [text] for number, text in enumerate(candidates)}
    )
    for pipe in (published.meteor_p.stdout, published.meteor_p.stderr):
        pipe.close()
    found = meteor(candidates, references)
    assert found.value == pytest.approx(100 * value, abs=0.005 + 1e-6)
    low, high = found.interval
    assert 0 < low < found.value < high < 100


@needs_java
def test_meteor_is_locale_independent(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")  # in which both would be question marks
    assert meteor(["犬"], [["猫"]]).value == 0


def test_missing_java_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for metric in (meteor, spice):
        with pytest.raises(JavaError) as error:
            metric(CAPTIONS, REFERENCES)
        assert_sentence(error, "install a Java runtime")


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("echo 'no such class' >&2; exit 3", "ended with status 3 (no such class)"),
        ("exit 1", "ended with status 1"),
        ("kill -9 $$", "ended with status -9"),
        ("echo hello", "as METEOR 1.5 does"),
        ("echo 1 2 3; echo 4 5", "as METEOR 1.5 does"),
        ("printf '\\377\\376'", "as METEOR 1.5 does"),
        ("", "as METEOR 1.5 does"),
    ],
)
def test_failing_java_is_reported(fake_java, program, named):
    fake_java(program)
    for size in (1, 5000):  # the latter more than a pipe holds
        with pytest.raises(JavaError) as error:
            meteor(CAPTIONS * size, REFERENCES * size)
        assert_sentence(error, named)


def test_non_executable_java_is_reported(fake_java):
    fake_java("", interpreter="/nowhere")
    with pytest.raises(JavaError) as error:
        meteor(CAPTIONS, REFERENCES)
    assert_sentence(error, "cannot be started")


@pytest.mark.parametrize(
    "program",
    [
        "echo $$ > {pid}; exec /bin/sleep 600",
        "/bin/sleep 600 & echo $! > {pid}; wait",  # as scripts that choose among several Javas
        "/bin/sleep 600 & echo $! > {pid}",  # that one has our pipes
    ],
)
def test_hanging_java_is_killed_with_children(fake_java, tmp_path, monkeypatch, program):
    fake_java(program.format(pid=tmp_path / "pid"))
    monkeypatch.setattr(java_metrics, "SECONDS_TO_START", 2.0)
    started = time.monotonic()
    with pytest.raises(JavaError) as error:
        meteor(CAPTIONS, REFERENCES)
    assert time.monotonic() - started < 60
    assert_sentence(error, "no answer in 3 seconds")
    assert wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_termination_ends_java(fake_java, tmp_path, number):
    pid = tmp_path / "pid"
    fake_java(f"echo $$ > {pid}.new; /bin/mv {pid}.new {pid}; exec /bin/sleep 600")
    usual = (
        "default_int_handler" if number == signal.SIGINT else "SIG_DFL"
    )  # whoever started us may ignore it
    heed = f"import signal; signal.signal({int(number)}, signal.{usual})"
    code = f"{heed}; from training.java_metrics import meteor; meteor({CAPTIONS!r}, {REFERENCES!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        assert wait_for(pid.exists, seconds=120)
        assert is_running(int(pid.read_text()))
        process.send_signal(number)
        assert process.wait(60) in (128 + number, -number)
    assert wait_for(lambda: not is_running(int(pid.read_text())))


def test_signal_handlers_are_restored(fake_java):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        fake_java("kill -HUP $PPID; /bin/sleep 0.2; exit 1")
        with pytest.raises(JavaError):
            meteor(CAPTIONS, REFERENCES)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_spice_without_models_is_skipped(fake_java, tmp_path, monkeypatch):
    fake_java(f"echo started > {tmp_path}/started")
    monkeypatch.setattr(java_metrics, "JARS", tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", None)
    with pytest.raises(JavaError) as error:
        spice(CAPTIONS, REFERENCES)
    assert_sentence(error, "pycocoevalcap.spice.get_stanford_models")
    assert not (tmp_path / "started").exists()


@pytest.fixture
def spice_jars(tmp_path, monkeypatch):
    folder = tmp_path / "jars" / "spice" / "lib"
    folder.mkdir(parents=True)
    for name in java_metrics.MODELS:
        (folder / name).touch()
    monkeypatch.setattr(java_metrics, "JARS", tmp_path / "jars")


# Answers as SPICE does: of a photo whose caption is a reference 1, else its number in hundredths.
SPICE = """
import json, sys
asked = json.load(open(sys.argv[sys.argv.index("-jar") + 2]))
found = [
    {"image_id": one["image_id"],
     "scores": {"All": {"f": 1.0 if one["test"] in one["refs"] else one["image_id"] / 100}}}
    for one in asked
]
json.dump(found, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


def test_spice_is_mean_over_photos(fake_java, spice_jars):
    fake_java(SPICE, interpreter=sys.executable)
    found = spice(["a dog", "a cat", "a man", "x"], [["a dog"], ["cats"], ["men", "a man"], ["y"]])
    assert found.value == pytest.approx(100 * (1 + 0.01 + 1 + 0.03) / 4)
    assert found.interval[0] < found.value < found.interval[1]


@pytest.mark.parametrize(
    "scores",
    [[], [{}], [{"scores": {"All": {"f": None}}}] * 2, [{"scores": {"All": {"f": float("nan")}}}] * 2, "x"],
)
def test_unexpected_spice_output_is_reported(fake_java, spice_jars, scores):
    fake_java(
        f"import sys; open(sys.argv[sys.argv.index('-out') + 1], 'w').write({json.dumps(scores)!r})",
        interpreter=sys.executable,
    )
    with pytest.raises(JavaError) as error:
        spice(CAPTIONS, REFERENCES)
    assert_sentence(error, "as SPICE 1.0 does")


def test_spice_leaves_no_files(fake_java, spice_jars, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(own))
    fake_java("exit 1")
    with pytest.raises(JavaError):
        spice(CAPTIONS, REFERENCES)
    assert os.listdir(own) == []


def test_other_scores_need_no_java(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Tally.of(CAPTIONS, REFERENCES).scores()["bleu_1"] == 100
