"""What a run shows while it trains: its log, its curves, and pages of sample captions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from model import Captioner
from training.data.caption_files import CaptionedPhoto
from training.engine.objective import Phase
from training.engine.trainer import Report
from training.errors import DataError
from training.reporting.curves import write_plot
from training.reporting.sample_pages import choose_samples, write_samples
from training.reporting.tensorboard import Scalars
from training.runs.run_directory import RunFolder, read_log

PLOT, SAMPLES = "curves.png", "samples"


class Journal:
    """Everything a run writes for people to look at. What cannot be written is said, and missed."""

    def __init__(self, folder: RunFolder, val: Sequence[CaptionedPhoto], seed: int) -> None:
        """``seed``: chooses among ``val`` the photos whose captions are shown."""
        self._folder = folder
        self._samples = choose_samples(val, seed)
        self._scalars: Scalars | None = None

    def open(self, *, step: int, epoch: int) -> None:
        """Begin, or go on after so many steps and epochs."""
        with _said():
            self._scalars = Scalars(self._folder.path, step=step, epoch=epoch)

    def step(self, step: int, phase: Phase, report: Report, rates: tuple[float, float]) -> None:
        """Note a step, counted from 1, with the learning rates of the encoder and of the rest."""
        if not self._scalars:
            return
        encoder, others = rates
        learnt = "reward" if phase is Phase.SELF_CRITICAL else "cross_entropy"
        values = {
            learnt: getattr(report, learnt),
            "doubly_stochastic": report.doubly_stochastic,
            "learning_rate": others,
            "encoder_learning_rate": encoder,
        }
        with _said():
            self._scalars.step(step, values)

    def epoch(self, line: dict[str, Any], captioner: Captioner) -> None:
        """Note an epoch: ``line`` is its line of the log.

        Raises:
            OSError: the log cannot be written; without it a run cannot go on.
            NonFiniteError: the network's output is not finite.
        """
        self._folder.append_to_log(line)
        lines = read_log(self._folder.path)
        with _said():
            write_plot(self._folder.path / PLOT, lines)
        with _said():
            write_samples(self._folder.path / SAMPLES, captioner, self._samples, lines)
        if self._scalars:
            with _said():
                self._scalars.epoch(line)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._scalars:
            with _said():
                self._scalars.close()


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Go on without what cannot be written: a picture less must not cost a night of training."""
    try:
        yield
    except (OSError, ValueError, DataError) as error:
        tqdm.write(f"warning: not written: {error}", file=sys.stderr)
