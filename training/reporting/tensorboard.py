"""The curves of a run for TensorBoard, which shows them while it trains: ``tensorboard --logdir RUN``.

TensorBoard is a large package that training does not need, so without it there are no curves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER, STEPS, EPOCHS = "tensorboard", "steps", "epochs"  # the last two in the first
FLUSH_SECONDS = 10
MISSING = (
    "TensorBoard is not installed, so there are no curves for it; "
    "python -m pip install tensorboard==2.21.0 brings it."
)
# Of a line of the log; what is missing or None is no point.
LOSSES = ("cross_entropy", "doubly_stochastic", "reward")
SCORES = ("cider", "bleu_4", "distinct_captions")


class Scalars:
    """Losses and learning rates over steps, scores over epochs; nothing where TensorBoard is missing.

    All methods raise OSError if the disk is full or the folder cannot be written; as writing goes on in the
    background, that may come a call late.
    """

    def __init__(self, run: Path, *, step: int, epoch: int) -> None:
        """Go on with the curves in ``run / "tensorboard"``, or begin them.

        What is there of later steps and epochs, a run that died has left: it is done again, and those points
        are not shown.

        Args:
            run: the folder of the run.
            step: how many steps are done, of which the curves keep the points; 0 begins anew.
            epoch: how many epochs are done.
        """
        self._steps: SummaryWriter | None = None
        self._epochs: SummaryWriter | None = None
        try:
            # Takes a second, and imports a package that may be missing.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print(MISSING, file=sys.stderr)
            return
        # One writer each: what is forgotten of the steps must be told apart from what is of the epochs.
        self._steps, self._epochs = (
            SummaryWriter(str(run / FOLDER / name), purge_step=done + 1, flush_secs=FLUSH_SECONDS)
            for name, done in ((STEPS, step), (EPOCHS, epoch))
        )

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Losses and learning rates of a step, by name; ``step`` counts from 1."""
        _add(self._steps, step, ((f"step/{name}", value) for name, value in values.items()))

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Losses, scores and the behaviour of the maps, from the line that the log has of an epoch."""
        _add(self._epochs, line["epoch"], _points(line))
        if self._epochs:
            self._epochs.flush()

    def close(self) -> None:
        """Write what is not yet written."""
        for writer in filter(None, (self._steps, self._epochs)):
            writer.close()


def _points(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The points that a line of the log has, by the names of their curves."""
    groups = {
        "train": {name: line.get(name) for name in LOSSES},
        "val": {name: line.get(name) for name in SCORES},
        "attention": line.get("attention") or {},
    }
    for group, values in groups.items():
        yield from ((f"{group}/{name}", value) for name, value in values.items() if value is not None)


def _add(writer: SummaryWriter | None, at: int, points: Iterator[tuple[str, float]]) -> None:
    if writer:
        for name, value in points:
            writer.add_scalar(name, value, at)
