"""Scores of captions against references: BLEU-1 to 4, ROUGE-L, CIDEr-D, with bootstrap intervals.

The scores are those of the COCO caption evaluation (pycocoevalcap) on text that went through our one
tokenizer on both sides; none of them needs Java. Knows nothing of networks or pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

RESAMPLES = 1000  # bootstrap samples of photographs behind an interval
ORDERS = 4

Floats = NDArray[np.float64]


def score_captions(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Corpus scores of one caption a photograph, all x 100.

    Args:
        candidates: captions, tokenized and joined by spaces.
        references: for each photograph what people wrote, tokenized and joined by spaces.

    Returns:
        ``bleu_1`` to ``bleu_4``, ``rouge_l``, ``cider``; under ``intervals`` the 95 % bootstrap
        interval [low, high] of each over photographs; and ``distinct_captions``, their number.
        CIDEr takes its document frequencies from ``references``, as the published scores do, so it is
        comparable only on the same set of photographs.
    """
    assert len(candidates) == len(references) > 0
    counts = _bleu_counts(candidates, references)
    per_photograph = {"rouge_l": _rouge_l(candidates, references), "cider": _cider(candidates, references)}
    scores = {f"bleu_{n + 1}": value for n, value in enumerate(_bleu(counts.sum(axis=0)))}
    scores |= {name: values.mean() for name, values in per_photograph.items()}
    return {
        **{name: _percent(value) for name, value in scores.items()},
        "intervals": _intervals(counts, per_photograph),
        "distinct_captions": len(set(candidates)),
    }


def _bleu_counts(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """What BLEU sums over photographs: (photographs, 10) of 4 matches, 4 guesses and 2 lengths."""
    scorer = BleuScorer(n=ORDERS)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    scorer.compute_score(option="closest", verbose=0)
    rows = []
    for parts, texts in zip(scorer.ctest, references, strict=True):
        length = parts["testlen"]
        closest = min((abs(len(text.split()) - length), len(text.split())) for text in texts)[1]
        rows.append([*parts["correct"], *parts["guess"], length, closest])
    return np.array(rows, dtype=np.float64)


def _bleu(sums: Floats) -> Floats:
    """BLEU-1 to BLEU-4 of summed counts (..., 10) as (..., 4), with the COCO evaluation's constants."""
    correct, guess = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    precision = (correct + 1e-15) / (guess + 1e-9)
    geometric = np.exp(np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1))
    ratio = (sums[..., -2:-1] + 1e-15) / (sums[..., -1:] + 1e-9)
    brevity: Floats = np.exp(np.minimum(0, 1 - 1 / ratio))
    return geometric * brevity


def _rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    rouge = Rouge()
    pairs = zip(candidates, references, strict=True)
    return np.array([rouge.calc_score([candidate], list(texts)) for candidate, texts in pairs])


def _cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    scorer = CiderScorer(n=ORDERS, sigma=6.0)
    for candidate, texts in zip(candidates, references, strict=True):
        scorer += (candidate, list(texts))
    _, scores = scorer.compute_score()
    return np.asarray(scores, dtype=np.float64)


def _intervals(counts: Floats, per_photograph: dict[str, Floats]) -> dict[str, list[float]]:
    """95 % percentile intervals over resampled photographs; CIDEr's document frequencies stay fixed."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
    samples = dict(zip((f"bleu_{n + 1}" for n in range(ORDERS)), _bleu_of_draws(counts, draws), strict=True))
    samples |= {name: values[draws].mean(axis=1) for name, values in per_photograph.items()}
    return {
        name: [_percent(edge) for edge in np.percentile(values, (2.5, 97.5))]
        for name, values in samples.items()
    }


def _bleu_of_draws(counts: Floats, draws: NDArray[np.int64]) -> Floats:
    """BLEU-1 to 4 of every resample, (4, RESAMPLES)."""
    return _bleu(np.stack([counts[draw].sum(axis=0) for draw in draws])).T


def _percent(value: float) -> float:
    return round(100 * float(value), 2)
