"""How well the confidence of captions agrees with whether they are right."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.correctness import Correctness
from training.evaluation.metrics import Floats, percent

BINS = 10  # of equal width
COVERAGES = (100, 90, 80, 70, 60, 50)  # per cent of the captions, the surest ones
DECIMALS = 4


def describe_confidence(confidence: Floats, correctness: Correctness) -> dict[str, Any]:
    """Compare the confidence of captions with whether they are right.

    Args:
        confidence: (photos,), 0 to 1.
        correctness: of the same captions.

    Returns:
        ``photographs``: their number. ``right`` and ``mean``: the share of right captions and the mean
        confidence. ``ece``: the expected calibration error (Guo et al. 2017, arXiv 1706.04599) with ``BINS``
        bins, 0 to 1. ``auroc_right`` and ``auroc_absent``: the probability that a right caption has a higher
        confidence than a wrong one, and a caption that names only what is present a higher one than a caption
        that names something absent; None if there are no such pairs. ``risk_coverage``: for each of
        ``COVERAGES`` the ``chair_i`` of the surest captions and the share of them that is ``wrong``, both
        x 100.
    """
    return {
        "photographs": len(confidence),
        "right": round(float(correctness.is_right.mean()), DECIMALS),
        "mean": round(float(confidence.mean()), DECIMALS),
        "ece": round(calibration_error(confidence, correctness.is_right), DECIMALS),
        "auroc_right": _rounded(auroc(confidence, correctness.is_right)),
        "auroc_absent": _rounded(auroc(confidence, correctness.absent == 0)),
        "risk_coverage": risk_coverage(confidence, correctness),
    }


def reliability(
    confidence: Floats, is_right: NDArray[np.bool_], bins: int = BINS
) -> Iterator[tuple[float, float, int]]:
    """Mean confidence, share of right captions, and number of captions of every bin that is not empty."""
    of_caption = np.minimum((confidence * bins).astype(int), bins - 1)
    for number in range(bins):
        if (inside := of_caption == number).any():
            yield float(confidence[inside].mean()), float(is_right[inside].mean()), int(inside.sum())


def calibration_error(confidence: Floats, is_right: NDArray[np.bool_]) -> float:
    """The mean difference of confidence and share of right captions, over captions by bins; 0 to 1."""
    parts = reliability(confidence, is_right)
    return sum(count * abs(mean - share) for mean, share, count in parts) / len(confidence)


def auroc(scores: Floats, is_positive: NDArray[np.bool_]) -> float | None:
    """The probability that a positive has a higher score than a negative; equal scores count half."""
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[is_positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def risk_coverage(confidence: Floats, correctness: Correctness) -> dict[str, dict[str, float | None]]:
    """The risk of using only the surest captions, by coverage in per cent; see ``describe_confidence``."""
    order = np.argsort(-confidence, kind="stable")
    found: dict[str, dict[str, float | None]] = {}
    for coverage in COVERAGES:
        surest = order[: max(1, round(len(order) * coverage / 100))]
        objects, absent = correctness.objects[surest].sum(), correctness.absent[surest].sum()
        found[str(coverage)] = {
            "chair_i": percent(absent / objects) if objects else None,
            "wrong": percent(1 - correctness.is_right[surest].mean()),
        }
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
