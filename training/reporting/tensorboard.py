"""TensorBoard curves of a run, live while it trains: ``tensorboard --logdir RUN``.

TensorBoard is a large optional package; without it these curves are not written.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER, STEPS, EPOCHS = "tensorboard", "steps", "epochs"  # the last two in the first
FLUSH_SECONDS = 10
MISSING = (
    "TensorBoard is not installed, so its live curves are not written; "
    "install it with python -m pip install tensorboard==2.21.0."
)
# Fields of the log; missing or None gives no point.
LOSSES = ("cross_entropy", "doubly_stochastic", "reward")
SCORES = ("cider", "bleu_4", "distinct_captions")


class Scalars:
    """Losses and learning rates over steps, scores over epochs; nothing where TensorBoard is missing.

    All methods raise OSError if the disk is full or the folder cannot be written, possibly one call later, as
    writing is in the background.
    """

    def __init__(self, run: Path, *, step: int, epoch: int) -> None:
        """Start the curves in ``run / "tensorboard"``, or continue them after this many steps and epochs.

        Points of later steps and epochs, left by a run that died, are hidden: they are repeated.
        """
        self._steps: SummaryWriter | None = None
        self._epochs: SummaryWriter | None = None
        try:
            # Imported here as it takes a second, and may be missing.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print(MISSING, file=sys.stderr)
            return
        # One writer each, as steps and epochs are purged separately.
        self._steps, self._epochs = (
            SummaryWriter(str(run / FOLDER / name), purge_step=done + 1, flush_secs=FLUSH_SECONDS)
            for name, done in ((STEPS, step), (EPOCHS, epoch))
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Losses and learning rates of a step, by name; ``step`` counts from 1."""
        _add(self._steps, step, "step", values)

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Losses, scores and attention statistics of an epoch, from its line of the log."""
        _add(self._epochs, line["epoch"], "train", {name: line.get(name) for name in LOSSES})
        _add(self._epochs, line["epoch"], "val", {name: line.get(name) for name in SCORES})
        _add(self._epochs, line["epoch"], "attention", line.get("attention") or {})
        if self._epochs:
            self._epochs.flush()

    def close(self) -> None:
        """Flush what is buffered."""
        for writer in filter(None, (self._steps, self._epochs)):
            writer.close()


def _add(writer: SummaryWriter | None, at: int, group: str, values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if writer and value is not None:
            writer.add_scalar(f"{group}/{name}", value, at)
