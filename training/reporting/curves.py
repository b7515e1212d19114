"""The picture of a run: its scores and its loss over the epochs, from the lines of its log.

This file knows nothing of networks or of how a run goes on; the lines are those of ``training.runs.run``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.files import replacing

Line = Mapping[str, Any]  # of the log: one epoch

SIZE = (8.0, 5.6)  # inches; text is sized for 800 pixels across
DOTS = 200  # an inch: twice that, for the screens of today
INK, SOFT_INK, RULE, SHADE = "#202024", "#5f5f66", "#d9d9de", "#f1f1f4"
TEXT_SIZE = 9.5  # points
LABEL_DISTANCE = 1.35 * TEXT_SIZE  # points between the labels of two curves
MOST_MARKERS = 40  # of more points they would run into one another
POINTS_AN_INCH = 72
HEADROOM = 1.15  # of the scale of scores: room for a label above the best
LEAST_TOP = 5.0  # of the scale of scores: a captioner that has learnt nothing has only zeros


class Curve(NamedTuple):
    """A number of the log as it is drawn. Markers differ too: colour alone tells some readers nothing."""

    field: str
    name: str
    colour: str  # of Okabe and Ito (2008), told apart by the colour-blind
    marker: str
    decimals: int
    factor: int = 1  # from the unit of the log to that of the picture


SCORES = (
    Curve("cider", "val CIDEr", "#0072b2", "o", 1),
    Curve("bleu_4", "val BLEU-4", "#d55e00", "s", 1),
    Curve("reward", "sampled CIDEr", "#007e5b", "^", 1, 100),
)
LOSSES = (Curve("cross_entropy", "train loss", INK, "o", 2),)
PHASES = {"frozen": "encoder frozen", "learning": "encoder learns", "self-critical": "self-critical"}


class Span(NamedTuple):
    """Successive epochs of one phase."""

    phase: str
    first: int  # epoch
    last: int  # epoch


def write_curves(path: Path, log_lines: Sequence[Line]) -> None:
    """Draw the run as a PNG of 1600 x 1120 pixels, whole or not at all.

    Above are the scores on val, x 100, and the reward of self-critical epochs in the same unit; below is the
    cross-entropy. An epoch without a number is passed over: the curve goes straight on to the next that has
    it. A ring marks the epoch with the best CIDEr, whose checkpoint is kept. Phases stand above their epochs.

    Args:
        path: of the picture; one that is there is replaced.
        log_lines: one or more, each with ``epoch`` (1 or more, rising) and, where known, ``phase`` (or
            ``encoder``), ``cider`` and ``bleu_4`` (x 100), ``reward`` (0 to 10) and ``cross_entropy`` (nats a
            word), any of which may be None.

    Raises:
        OSError: the picture cannot be written; one that was there stays.
    """
    assert log_lines, "nothing to draw"
    figure = _draw(log_lines)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DOTS)


def _draw(lines: Sequence[Line]) -> Figure:
    # Without pyplot: that has one state for the whole process, and may ask for a screen.
    figure = Figure(figsize=SIZE, facecolor="white")
    FigureCanvasAgg(figure)
    scores, losses = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.subplots_adjust(left=0.08, right=0.81, top=0.89, bottom=0.09, hspace=0.12)
    spans = _spans(lines)
    for axes in (scores, losses):
        _prepare(axes, spans)
    losses.set_xlim(lines[0]["epoch"] - 0.5, lines[-1]["epoch"] + 0.5)
    for set_label, label in (
        (scores.set_ylabel, "score × 100"),
        (losses.set_ylabel, "nats a word"),
        (losses.set_xlabel, "epoch"),
    ):
        set_label(label, color=SOFT_INK, fontsize=TEXT_SIZE)
    _draw_curves(losses, LOSSES, lines)
    _draw_curves(scores, SCORES, lines)
    _ring_best(scores, lines)
    scores.set_ylim(0, max(LEAST_TOP, HEADROOM * scores.dataLim.y1))
    _label_ends(losses, LOSSES, lines)
    _label_ends(scores, SCORES, lines)
    _name_phases(scores, spans)
    return figure


def _spans(lines: Sequence[Line]) -> list[Span]:
    """In order; of lines that do not say what they are of, none."""
    named = [(line.get("phase") or line.get("encoder"), line["epoch"]) for line in lines]
    grouped = [(name, [epoch for _, epoch in group]) for name, group in groupby(named, key=itemgetter(0))]
    return [Span(str(name), epochs[0], epochs[-1]) for name, epochs in grouped if name]


def _prepare(axes: Axes, spans: Sequence[Span]) -> None:
    """Every second span shaded, and no more lines than are needed to read a value."""
    for span in spans[::2]:
        axes.axvspan(span.first - 0.5, span.last + 0.5, color=SHADE, linewidth=0, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.tick_params(colors=SOFT_INK, labelsize=TEXT_SIZE, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=14, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _draw_curves(axes: Axes, curves: Sequence[Curve], lines: Sequence[Line]) -> None:
    axes.margins(y=0.15)
    for curve in curves:
        points = _points(lines, curve)
        axes.plot(
            [epoch for epoch, _ in points],
            [value for _, value in points],
            color=curve.colour,
            linewidth=1.8,
            marker=curve.marker if len(points) <= MOST_MARKERS else "",
            markersize=4.5,
            clip_on=False,
        )


def _label_ends(axes: Axes, curves: Sequence[Curve], lines: Sequence[Line]) -> None:
    """Each curve's name and last value at its end; the scale must not change afterwards."""
    ends = {curve: points[-1] for curve in curves if (points := _points(lines, curve))}
    heights = {curve: float(axes.transData.transform(end)[1]) for curve, end in ends.items()}
    free = -math.inf  # points above the bottom of the picture, where a label is in no other's way
    for curve in sorted(ends, key=heights.__getitem__):
        height = heights[curve] * POINTS_AN_INCH / axes.figure.dpi
        free = max(height, free)
        axes.annotate(
            f"{curve.name} {ends[curve][1]:.{curve.decimals}f}",
            ends[curve],
            xytext=(9, free - height),
            textcoords="offset points",
            color=curve.colour,
            fontsize=TEXT_SIZE,
            va="center",
            annotation_clip=False,
        )
        free += LABEL_DISTANCE


def _points(lines: Sequence[Line], curve: Curve) -> list[tuple[int, float]]:
    """Epochs and values, of the epochs that have one."""
    there = [line for line in lines if line.get(curve.field) is not None]
    return [(line["epoch"], line[curve.field] * curve.factor) for line in there]


def _ring_best(axes: Axes, lines: Sequence[Line]) -> None:
    cider = SCORES[0]
    points = _points(lines, cider)
    if len(points) < 2:
        return
    best = max(points, key=itemgetter(1))  # the first of equals, as the run keeps it
    axes.plot(*best, marker="o", markersize=10, markerfacecolor="none", color=cider.colour, clip_on=False)
    if best != points[-1]:
        axes.annotate(
            f"best {best[1]:.1f}",
            best,
            xytext=(0, 10),
            textcoords="offset points",
            color=cider.colour,
            fontsize=TEXT_SIZE,
            ha="center",
        )


def _name_phases(axes: Axes, spans: Sequence[Span]) -> None:
    """Names above the first epochs of their phases, in a higher row where a neighbour is in the way."""
    ends: list[float] = []  # of every row, pixels
    for span in spans:
        left = float(axes.transData.transform((span.first - 0.5, 0))[0])
        row = next((row for row, end in enumerate(ends) if end < left), len(ends))
        label = axes.annotate(
            PHASES.get(span.phase, span.phase),
            (span.first - 0.5, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 5 + row * LABEL_DISTANCE),
            textcoords="offset points",
            color=SOFT_INK,
            fontsize=TEXT_SIZE,
            annotation_clip=False,
        )
        ends[row : row + 1] = [label.get_window_extent().x1]
