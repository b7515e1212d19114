"""METEOR and SPICE, the two metrics of the COCO caption evaluation that need Java, by pycocoevalcap.

Each is computed in a process of its own, because pycocoevalcap waits forever when Java hangs or fails.
Nothing is downloaded: SPICE needs language models (384 MB) that must be installed before.
"""

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

import pycocoevalcap

from training.errors import JavaError
from training.evaluation.metrics import percent

JAVA_METRICS = ("meteor", "spice")
SPICE_LIBRARY = Path(next(iter(pycocoevalcap.__path__))) / "spice" / "lib"
SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")

# Many times what METEOR takes on one busy core, and SPICE is said to take.
START_TIMEOUT = 120.0  # seconds
PHOTO_TIMEOUT = 0.5  # seconds for each photo

_PROGRAM = """
import importlib, json, os, sys
name, candidates, references = json.load(sys.stdin)
try:
    scorer = getattr(importlib.import_module(f"pycocoevalcap.{name}.{name}"), name.capitalize())()
    said = {number: [text] for number, text in enumerate(candidates)}
    score, _ = scorer.compute_score(dict(enumerate(references)), said)
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)  # the destructor of Meteor deadlocks after an error
print(float(score))
"""


def java_score(name: str, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """A score of captions, x 100, as pycocoevalcap computes it.

    Args:
        name: one of ``JAVA_METRICS``.
        candidates: one caption per photo, tokenized and joined by spaces.
        references: the human captions of each photo, in the same form.

    Raises:
        JavaError: Java or the models of SPICE are not installed, or the metric failed.
    """
    if shutil.which("java") is None:
        raise JavaError("`java` was not found; install a Java runtime, version 8 or newer.")
    missing = [model for model in SPICE_MODELS if not (SPICE_LIBRARY / model).is_file()]
    if name == "spice" and missing:
        raise JavaError(
            f"{missing[0]} is not in {SPICE_LIBRARY}; download it (384 MB) with "
            "`python -m pycocoevalcap.spice.get_stanford_models`."
        )
    printed = _run(
        json.dumps((name, candidates, references)), START_TIMEOUT + PHOTO_TIMEOUT * len(candidates)
    )
    score = float(printed.splitlines()[-1])  # SPICE prints other lines before
    if not math.isfinite(score):
        raise JavaError(f"the score is {score}; check that pycocoevalcap 1.2 is installed completely.")
    return percent(score)


def _run(question: str, timeout: float) -> str:
    """What the scoring process prints; it and the Java that it started are gone when this returns."""
    process = Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        encoding="utf-8",
        errors="replace",
        # Before version 18, Java reads by the locale, which may be ASCII only.
        env={**os.environ, "JAVA_TOOL_OPTIONS": "-Dfile.encoding=UTF-8"},
        start_new_session=True,
    )
    try:
        printed, errors = process.communicate(question, timeout=timeout)
    except TimeoutExpired:
        raise JavaError(
            f"Java gave no answer within {timeout:.0f} s; try again on a less busy machine."
        ) from None
    finally:
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        reason = (errors.strip().splitlines() or [f"status {process.returncode}"])[-1].rstrip(".")
        raise JavaError(f"Java failed ({reason}); check that `java -version` works.")
    return printed
