"""The reliability diagram of a captioner's confidence, and the risk of using only the surest captions."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.files import replacing
from training.evaluation.calibration import BINS, describe_confidence, reliability
from training.evaluation.correctness import Correctness
from training.evaluation.metrics import Floats
from training.reporting.curves import DPI, INK, RULE, SOFT_INK, TEXT_SIZE

SIZE = (8.0, 3.8)  # inches
BLUE, ORANGE = "#0072b2", "#d55e00"  # of the palette of Okabe and Ito (2008)


def write_reliability(path: Path, confidence: Floats, correctness: Correctness) -> None:
    """Draw a PNG of 1600 x 760 pixels, written atomically.

    On the left, the share of right captions against their mean confidence, with the number of captions of
    each bin; calibrated confidence is on the diagonal. On the right, the share of wrong captions and CHAIR_i
    among the surest captions.

    Args:
        path: of the plot.
        confidence: (photos,), 0 to 1.
        correctness: of the same captions.

    Raises:
        OSError: the plot cannot be written; the previous one stays.
    """
    figure = Figure(figsize=SIZE, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot, as in ``write_curves``
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, confidence, correctness)
    _draw_risk(right, confidence, correctness)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DPI)


def _draw_reliability(axes: Axes, confidence: Floats, correctness: Correctness) -> None:
    found = list(reliability(confidence, correctness.is_right))
    means, shares, counts = zip(*found, strict=True)
    error = describe_confidence(confidence, correctness)["ece"]
    axes.plot((0, 1), (0, 1), color=SOFT_INK, linewidth=1, linestyle="--", label="calibrated")
    axes.plot(
        means,
        shares,
        color=BLUE,
        linewidth=1.8,
        marker="o",
        markersize=4.5,
        clip_on=False,
        label=f"ECE {error:.3f}",
    )
    for mean, share, count in zip(means, shares, counts, strict=True):
        axes.annotate(
            str(count),
            (mean, share),
            (-3, 5),
            textcoords="offset points",
            horizontalalignment="right",
            color=SOFT_INK,
            fontsize=7,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([number / BINS for number in range(0, BINS + 1, 2)])
    _style(axes, "confidence", "share of right captions")


def _draw_risk(axes: Axes, confidence: Floats, correctness: Correctness) -> None:
    risks = describe_confidence(confidence, correctness)["risk_coverage"]
    for field, name, colour, marker in (
        ("wrong", "wrong captions", BLUE, "o"),
        ("chair_i", "absent objects (CHAIR_i)", ORANGE, "s"),
    ):
        points = [(int(coverage), risk[field]) for coverage, risk in risks.items() if risk[field] is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                linewidth=1.8,
                marker=marker,
                markersize=4.5,
                label=name,
            )
    axes.set_ylim(bottom=0)
    _style(axes, "surest captions, %", "risk, %")


def _style(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across, color=SOFT_INK, fontsize=TEXT_SIZE)
    axes.set_ylabel(up, color=SOFT_INK, fontsize=TEXT_SIZE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.set_axisbelow(True)
    axes.grid(color=RULE, linewidth=0.7)
    axes.tick_params(colors=SOFT_INK, labelsize=TEXT_SIZE, length=0)
    axes.legend(loc="upper left", frameon=False, fontsize=TEXT_SIZE, labelcolor=INK)
