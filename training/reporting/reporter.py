"""Reports on a run while it trains: log, curves, sample pages and TensorBoard."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from model import Captioner
from training.data.caption_files import CaptionedPhoto
from training.engine.objective import Phase
from training.engine.trainer import StepMetrics
from training.errors import DataError
from training.reporting.curves import write_curves
from training.reporting.epoch_log import append_epoch, read_log
from training.reporting.sample_pages import choose_samples, write_samples
from training.reporting.tensorboard import Scalars

CURVES, SAMPLES = "curves.png", "samples"


class Reporter:
    """Writes everything that people read. Only the log is essential: other failures are warnings."""

    def __init__(self, run: Path, val: Sequence[CaptionedPhoto], seed: int) -> None:
        """Report in the folder ``run``; ``seed`` chooses the photos of ``val`` for the sample pages."""
        self._run = run
        self._samples = choose_samples(val, seed)
        self._scalars: Scalars | None = None

    def open(self, *, step: int, epoch: int) -> None:
        """Start, or resume after this many steps and epochs."""
        with _warn_on_failure():
            self._scalars = Scalars(self._run, step=step, epoch=epoch)

    def step(self, step: int, phase: Phase, metrics: StepMetrics, rates: tuple[float, float]) -> None:
        """Report a step, counted from 1, with the learning rates of the encoder and of the decoder."""
        if not self._scalars:
            return
        encoder, decoder = rates
        objective = "reward" if phase is Phase.SELF_CRITICAL else "cross_entropy"
        values = {
            objective: getattr(metrics, objective),
            "doubly_stochastic": metrics.doubly_stochastic,
            "learning_rate": decoder,
            "encoder_learning_rate": encoder,
        }
        with _warn_on_failure():
            self._scalars.step(step, values)

    def epoch(self, line: dict[str, Any], captioner: Captioner) -> None:
        """Report an epoch, given its line of the log.

        Raises:
            OSError: the log cannot be written.
            NonFiniteError: the network's output is not finite.
        """
        append_epoch(self._run, line)
        lines = read_log(self._run)
        with _warn_on_failure():
            write_curves(self._run / CURVES, lines)
        with _warn_on_failure():
            write_samples(self._run / SAMPLES, captioner, self._samples, lines)
        if self._scalars:
            with _warn_on_failure():
                self._scalars.epoch(line)

    def close(self) -> None:
        """Flush what is buffered."""
        if self._scalars:
            with _warn_on_failure():
                self._scalars.close()


@contextlib.contextmanager
def _warn_on_failure() -> Iterator[None]:
    """Turn a failed write into a warning: a missing plot must not end a night of training."""
    try:
        yield
    except (OSError, ValueError, DataError) as error:
        tqdm.write(f"warning: not written: {error}", file=sys.stderr)
