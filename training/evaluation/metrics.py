"""Scores of captions against references: BLEU-1 to 4, ROUGE-L and CIDEr-D, with bootstrap intervals.

They equal those of the COCO caption evaluation (pycocoevalcap) on captions and references that our tokenizer
cut. None of them needs Java; ``java_metrics`` has those that do.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge

from model.tokenizer import cut_for_scoring

RESAMPLES = 1000  # bootstrap samples of an interval
ORDERS = 4

Floats = NDArray[np.float64]


class CorpusScores(NamedTuple):
    """The parts of corpus scores that each photo contributes."""

    bleu: Floats  # (photos, 10): 4 matches, 4 guesses and 2 lengths, which BLEU sums
    rouge_l: Floats  # (photos,)
    cider: Floats  # (photos,)

    @classmethod
    def of(cls, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Self:
        """Score one caption per photo.

        Args:
            candidates: captions, tokenized and joined by spaces.
            references: the human captions of each photo, in the same form. CIDEr takes its document
                frequencies from them, as published scores do, so it can only be compared on the same photos.
        """
        assert len(candidates) == len(references) > 0
        candidates = [cut_for_scoring(text) for text in candidates]
        references = [[cut_for_scoring(text) for text in texts] for texts in references]
        return cls(
            _bleu_counts(candidates, references),
            _rouge_l(candidates, references),
            _cider(candidates, references),
        )

    @classmethod
    def pooled(cls, runs: Sequence[Self]) -> Self:
        """The scores of several captioners on the same photos, taken together."""
        bleu, rouge_l, cider = (np.stack(parts) for parts in zip(*runs, strict=True))
        return cls(bleu.sum(axis=0), rouge_l.mean(axis=0), cider.mean(axis=0))

    def subset(self, rows: Sequence[int]) -> Self:
        """Those of some photos, at least one; CIDEr keeps the document frequencies of all photos."""
        assert len(rows) > 0
        chosen = list(rows)
        return type(self)(self.bleu[chosen], self.rouge_l[chosen], self.cider[chosen])

    def fractions(self) -> dict[str, float]:
        """``bleu_1`` to ``bleu_4`` and ``rouge_l`` from 0 to 1, and ``cider`` from 0 to 10, unrounded."""
        bleu = {f"bleu_{n + 1}": float(value) for n, value in enumerate(_bleu(self.bleu.sum(axis=0)))}
        return bleu | {"rouge_l": float(self.rouge_l.mean()), "cider": float(self.cider.mean())}

    def summary(self) -> dict[str, Any]:
        """``bleu_1`` to ``bleu_4``, ``rouge_l`` and ``cider``, all x 100, and their ``intervals``.

        These are 95% bootstrap intervals [low, high] over photos.
        """
        return {
            **{name: percent(value) for name, value in self.fractions().items()},
            "intervals": {name: interval(values) for name, values in self._resampled().items()},
        }

    def differences(self, other: Self) -> dict[str, Any]:
        """These scores minus those of ``other`` on the same photos, all x 100.

        Returns:
            For each score the ``difference`` and its 95% paired bootstrap ``interval``: both captioners are
            scored on the same resampled photos.
        """
        mine, others = self.summary(), other.summary()
        resampled, of_other = self._resampled(), other._resampled()
        return {
            name: {
                "difference": round(mine[name] - others[name], 2),
                "interval": interval(resampled[name] - of_other[name]),
            }
            for name in resampled
        }

    def _resampled(self) -> dict[str, Floats]:
        """Every score of every bootstrap sample, (RESAMPLES,); CIDEr's document frequencies stay fixed."""
        draws = bootstrap_draws(len(self.bleu))
        bleu = _bleu(np.stack([self.bleu[draw].sum(axis=0) for draw in draws])).T  # (4, RESAMPLES)
        samples = {f"bleu_{n + 1}": values for n, values in enumerate(bleu)}
        return samples | {
            "rouge_l": self.rouge_l[draws].mean(axis=1),
            "cider": self.cider[draws].mean(axis=1),
        }


def percent(value: float) -> float:
    """A score x 100, rounded to two decimals."""
    return round(100 * float(value), 2)


def bootstrap_draws(photos: int) -> NDArray[np.int64]:
    """The photos of every bootstrap sample, (RESAMPLES, photos), the same in every call."""
    return np.random.default_rng(0).integers(photos, size=(RESAMPLES, photos))


def interval(values: Floats) -> list[float]:
    """The 95% interval [low, high] of a score, x 100, from its values in bootstrap samples."""
    return [percent(edge) for edge in np.percentile(values, (2.5, 97.5))]


def _bleu_counts(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """What BLEU sums over photos, (photos, 10): 4 matches, 4 guesses and 2 lengths."""
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
