"""The curves of a run: a plot of its scores and its loss over the epochs, from its log."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.files import replacing
from training.reporting.epoch_log import EpochLine

SIZE = (8.0, 5.6)  # inches
DPI = 200  # twice the 800 pixels that text is sized for, for high-density screens
INK, SOFT_INK, RULE = "#202024", "#5f5f66", "#d9d9de"
TEXT_SIZE = 9.5  # points
MAX_MARKERS = 40  # markers of more points would overlap
MIN_TOP = 5.0  # of the scale of scores, which may all be 0


class Curve(NamedTuple):
    """How a field of the log is drawn. Markers differ too, for readers who cannot tell colours apart."""

    field: str
    name: str
    colour: str  # of the colour-blind safe palette of Okabe and Ito (2008)
    marker: str
    decimals: int
    factor: int = 1  # from the unit of the log to that of the plot


SCORES = (
    Curve("cider", "val CIDEr", "#0072b2", "o", 1),
    Curve("bleu_4", "val BLEU-4", "#d55e00", "s", 1),
    Curve("reward", "sampled CIDEr", "#007e5b", "^", 1, 100),
)
LOSSES = (Curve("cross_entropy", "train loss", INK, "o", 2),)
PHASES = {  # name and background
    "frozen": ("encoder frozen", "#f1f1f4"),
    "learning": ("encoder trained", "white"),
    "self-critical": ("self-critical", "#f7efdd"),
}


def write_curves(path: Path, lines: Sequence[EpochLine]) -> None:
    """Draw a run as a PNG of 1600 x 1120 pixels, written atomically.

    Above are the scores on val and the reward of self-critical epochs, x 100; below is the cross-entropy.
    Curves skip epochs without a value. A ring marks the best CIDEr, whose checkpoint is kept.

    Args:
        path: of the plot.
        lines: of the log, one or more, each with ``epoch`` and, where known, ``phase`` (``encoder`` in old
            logs), ``cider`` and ``bleu_4`` (x 100), ``reward`` (0 to 10) and ``cross_entropy`` (nats a
            word), any of which may be None.

    Raises:
        OSError: the plot cannot be written; the previous one stays.
    """
    assert lines, "nothing to draw"
    figure = _draw(lines)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DPI)


def _draw(lines: Sequence[EpochLine]) -> Figure:
    figure = Figure(figsize=SIZE, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot, which has global state and may need a display
    scores, losses = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for axes, label in ((scores, "score × 100"), (losses, "nats a word")):
        _style(axes, label)
        _shade_phases(axes, lines, in_legend=axes is scores)
    losses.set_xlabel("epoch", color=SOFT_INK, fontsize=TEXT_SIZE)
    losses.set_xlim(lines[0]["epoch"] - 0.5, lines[-1]["epoch"] + 0.5)
    _plot(scores, SCORES, lines)
    _plot(losses, LOSSES, lines)
    _ring_best(scores, lines)
    scores.set_ylim(0, max(MIN_TOP, 1.1 * scores.dataLim.y1))
    for axes in (scores, losses):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=TEXT_SIZE)
    return figure


def _style(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, color=SOFT_INK, fontsize=TEXT_SIZE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.tick_params(colors=SOFT_INK, labelsize=TEXT_SIZE, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=14, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.margins(y=0.15)


def _shade_phases(axes: Axes, lines: Sequence[EpochLine], *, in_legend: bool) -> None:
    phases = [(line.get("phase") or line.get("encoder"), line["epoch"]) for line in lines]
    for phase, group in groupby(phases, key=itemgetter(0)):
        if phase in PHASES:
            epochs = [epoch for _, epoch in group]
            name, colour = PHASES[phase]
            axes.axvspan(
                epochs[0] - 0.5,
                epochs[-1] + 0.5,
                facecolor=colour,
                edgecolor=RULE,
                linewidth=0.7,
                zorder=0,
                label=name if in_legend else None,
            )


def _plot(axes: Axes, curves: Sequence[Curve], lines: Sequence[EpochLine]) -> None:
    for curve in curves:
        if points := _points(lines, curve):
            axes.plot(
                *zip(*points, strict=True),
                color=curve.colour,
                linewidth=1.8,
                marker=curve.marker if len(points) <= MAX_MARKERS else "",
                markersize=4.5,
                clip_on=False,
                label=f"{curve.name} {points[-1][1]:.{curve.decimals}f}",
            )


def _points(lines: Sequence[EpochLine], curve: Curve) -> list[tuple[int, float]]:
    known = [line for line in lines if line.get(curve.field) is not None]
    return [(line["epoch"], line[curve.field] * curve.factor) for line in known]


def _ring_best(axes: Axes, lines: Sequence[EpochLine]) -> None:
    cider = SCORES[0]
    if points := _points(lines, cider):
        epoch, best = max(points, key=itemgetter(1))  # the first of equals, as the run keeps it
        axes.plot(
            epoch,
            best,
            color=cider.colour,
            linestyle="none",
            marker="o",
            markersize=10,
            markerfacecolor="none",
            clip_on=False,
            label=f"best CIDEr {best:.1f}",
        )
