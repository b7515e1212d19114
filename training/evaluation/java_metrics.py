"""METEOR and SPICE, the two scores of the COCO caption evaluation that need Java.

Both are computed by the jars that pycocoevalcap brings. What cannot be computed raises a ``JavaError``, whose
sentence says why and what would help, and no Java outlives the call that started it. Nothing is ever fetched:
SPICE needs language models that pycocoevalcap downloads (384 MB) and that have to be there before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from types import FrameType
from typing import NamedTuple, NoReturn

import numpy as np
import pycocoevalcap

from training.errors import JavaError
from training.evaluation.metrics import Floats, bootstrap_draws, interval, percent

JARS = Path(next(iter(pycocoevalcap.__path__)))
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")

# Many times what METEOR takes on one busy core, and SPICE is said to take: beyond this Java hangs.
SECONDS_TO_START = 120.0
SECONDS_A_PHOTO = 0.5

# METEOR 1.5 for English (Denkowski and Lavie 2014, table 1). The matches are, in this order, of equal
# words, stems, synonyms and paraphrases.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
STATISTICS = 23  # that METEOR counts in a caption, see _meteor


class JavaScore(NamedTuple):
    """A score of a set of captions, x 100."""

    value: float
    interval: list[float]  # 95 % bootstrap interval [low, high] over photos


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> JavaScore:
    """METEOR 1.5 as pycocoevalcap has it: of the statistics of all captions together.

    Args:
        candidates: captions, tokenized and joined by spaces, one a photo.
        references: for each photo what people wrote, in the same form.

    Raises:
        JavaError: there is no Java, or it failed.
    """
    lines = [
        " ||| ".join(("SCORE", *texts, candidate))
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    jar = JARS / "meteor" / "meteor-1.5.jar"
    said = _ask_java(
        ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"],
        "".join(f"{line}\n" for line in lines),
        _patience(len(lines)),
    )
    rows = _statistics(said, len(lines))
    draws = bootstrap_draws(len(rows))
    resampled = _meteor(np.stack([rows[draw].sum(axis=0) for draw in draws]))
    return JavaScore(percent(float(_meteor(rows.sum(axis=0)))), interval(resampled))


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> JavaScore:
    """SPICE 1.0 as pycocoevalcap has it: the mean over photos of the F-score of their scene graphs.

    Args:
        candidates: captions, tokenized and joined by spaces, one a photo.
        references: for each photo what people wrote, in the same form.

    Raises:
        JavaError: there is no Java, the language models are not there, or Java failed.
    """
    _find_java()  # first, for without it the models are of no use
    folder = JARS / "spice"
    if missing := [name for name in MODELS if not (folder / "lib" / name).is_file()]:
        raise JavaError(
            f"{missing[0]} is not in {folder / 'lib'}; where there is a network, "
            "`python -m pycocoevalcap.spice.get_stanford_models` fetches it (384 MB)."
        )
    asked = [
        {"image_id": number, "test": candidate, "refs": list(texts)}
        for number, (candidate, texts) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory(prefix="spice-") as own:
        question, answer = Path(own) / "captions.json", Path(own) / "scores.json"
        question.write_text(json.dumps(asked), encoding="utf-8")
        jar = str(folder / "spice-1.0.jar")
        files = [str(question), "-out", str(answer)]
        _ask_java(["-Xmx8G", "-jar", jar, *files, "-subset", "-silent"], "", _patience(len(asked)))
        scores = _spice_scores(answer, len(asked))
    return JavaScore(percent(scores.mean()), interval(scores[bootstrap_draws(len(scores))].mean(axis=1)))


JAVA_METRICS: Mapping[str, Callable[[Sequence[str], Sequence[Sequence[str]]], JavaScore]] = {
    "meteor": meteor,
    "spice": spice,
}


def _patience(photos: int) -> float:
    return SECONDS_TO_START + SECONDS_A_PHOTO * photos


def _find_java() -> str:
    java = shutil.which("java")
    if java is None:
        raise JavaError("There is no `java` to be found; install a Java runtime, version 8 or newer.")
    return java


def _ask_java(arguments: Sequence[str], text: str, seconds: float) -> str:
    """What Java prints when it is given ``text``; it is gone when this returns or raises.

    Raises:
        JavaError: it is not there, cannot be started, fails, or takes longer than ``seconds``.
    """
    # Before version 18 Java reads by the locale, which may know ASCII only.
    command = [_find_java(), "-Dfile.encoding=UTF-8", *arguments]
    try:
        with _running(command) as java:
            said, complaint = java.communicate(text, timeout=seconds)
    except TimeoutExpired:
        raise JavaError(
            f"Java gave no answer in {seconds:.0f} seconds; try again when the computer is less busy."
        ) from None
    except OSError as error:
        raise JavaError(f"Java cannot be started ({error}); install one that runs.") from None
    if java.returncode != 0:
        last = (complaint.strip().splitlines() or ["no word of why"])[-1].strip().rstrip(".")
        raise JavaError(f"Java ended with status {java.returncode} ({last}); see that `java -version` works.")
    return said


@contextmanager
def _running(command: Sequence[str]) -> Iterator[Popen[str]]:
    """A process in a group of its own, all of which is killed in the end: `java` may be a script.

    Meanwhile the signals that would end this process at once raise an exception, so that the other ends too.
    """
    process: Popen[str] | None = None
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if process is not None and len(came) == 1:  # one that is being started could not be killed yet
            _stop(number)

    with _handling(end):
        try:
            process = Popen(
                command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            if came:
                _stop(came[0])
            yield process
        finally:
            if process is not None:
                with process, suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _stop(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Hand signals that would end the process to ``handler``, but those that somebody handles or ignores."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    is_main = threading.current_thread() is threading.main_thread()  # the only one that may set handlers
    deadly = {
        number: action
        for number, action in before.items()
        if is_main and action in (signal.SIG_DFL, signal.default_int_handler)
    }
    for number in deadly:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, action in deadly.items():
            signal.signal(number, action)


def _statistics(said: str, photos: int) -> Floats:
    """What METEOR counted, (photos, STATISTICS), made so that rows of several photos may be added.

    Raises:
        JavaError: the answer has another form.
    """
    try:
        rows = np.array([[float(number) for number in line.split()] for line in said.splitlines()])
    except ValueError:
        rows = np.empty(0)
    if rows.shape != (photos, STATISTICS) or not np.isfinite(rows).all():
        raise JavaError(
            "Java did not answer as METEOR 1.5 does; see that pycocoevalcap 1.2 is installed whole."
        )
    # A caption that is a reference word for word is not in one chunk but in none: nothing is out of order.
    lengths, matched, chunks = rows[:, :2], rows[:, 21:], rows[:, 20]
    chunks[(lengths == matched).all(axis=1) & (chunks == 1)] = 0
    return rows


def _meteor(sums: Floats) -> Floats:
    """METEOR of summed statistics, (..., STATISTICS) as (...).

    They are: words of the caption and of its best reference, function words of both; for each of the four
    kinds of match the content words matched in both, then the function words in both; chunks, and all words
    matched in both.
    """
    words, functions = sums[..., 0:2], sums[..., 2:4]  # (..., 2): caption, reference
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # kind of match, content or function, side
    by_side = DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :]  # (..., 4, 2)
    matched = (WEIGHTS[:, np.newaxis] * by_side).sum(axis=-2)  # (..., 2)
    # Where nothing matches there is nothing to divide by, and the score is 0.
    some = np.where(matched > 0, matched, np.nan)
    precision, recall = np.moveaxis(some / (DELTA * (words - functions) + (1 - DELTA) * functions), -1, 0)
    mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
    fragments = sums[..., 20] / np.where(sums[..., 21] > 0, sums[..., 21:].mean(axis=-1), np.nan)
    scores: Floats = np.nan_to_num(mean * (1 - GAMMA * fragments**BETA))
    return scores


def _spice_scores(answer: Path, photos: int) -> Floats:
    """The F-score of every photo, (photos,), as a fraction.

    Raises:
        JavaError: the answer has another form.
    """
    try:
        found = json.loads(answer.read_text(encoding="utf-8"))
        scores = np.array([float(item["scores"]["All"]["f"]) for item in found])
    except (OSError, ValueError, KeyError, TypeError):
        scores = np.empty(0)
    if scores.shape != (photos,) or not np.isfinite(scores).all():
        raise JavaError("Java did not answer as SPICE 1.0 does; try a Java of version 8 to 13.")
    return scores
