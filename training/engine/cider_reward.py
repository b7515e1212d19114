"""What a sampled caption is worth: its CIDEr-D against what people wrote of the photo.

Vedantam, Zitnick and Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation" (arXiv
1411.5726), in the form CIDEr-D of the COCO caption evaluation. The library that scores
(pycocoevalcap) takes document frequencies from the captions it is given at once; a batch needs those of
the whole training set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from model.vocabulary import MAX_NGRAM, Ngram, count_ngrams

SIGMA = 6.0  # tokens; how quickly a difference in length costs


class CiderReward:
    """CIDEr-D of captions in ids, with the document frequencies of a training set.

    A caption that ended comes with its end token, which counts as a word: without that a caption gains by
    stopping before its last noun phrase is complete ("a dog on a").
    """

    def __init__(self, captions: Iterable[Sequence[Sequence[int]]]) -> None:
        """``captions``: for each photo of the training set what people wrote, in ids."""
        self._documents: Counter[Ngram] = Counter()
        photos = 0
        for references in captions:
            photos += 1
            self._documents.update({ngram for ids in references for ngram in count_ngrams(ids)})
        self._log_photos = math.log(max(photos, 1))

    def of(self, candidates: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> list[float]:
        """The score of each candidate against all ``references`` of one photo (one or more), 0 to 10.

        10 is a caption that all people wrote; the scores that are published as 60 are 0.6 here.
        """
        wanted = [self._weigh(ids) for ids in references]
        return [self._score(self._weigh(ids), wanted) for ids in candidates]

    def _score(self, candidate: _Weighed, references: Sequence[_Weighed]) -> float:
        return 10 * sum(candidate.similarity(reference) for reference in references) / len(references)

    def _weigh(self, ids: Sequence[int]) -> _Weighed:
        weights: dict[Ngram, float] = {}
        squares = [0.0] * MAX_NGRAM
        for ngram, count in count_ngrams(ids).items():
            rarity = self._log_photos - math.log(max(1, self._documents[ngram]))
            weights[ngram] = count * rarity
            squares[len(ngram) - 1] += weights[ngram] ** 2
        # The COCO evaluation takes the number of bigrams for the length.
        return _Weighed(weights, [math.sqrt(square) for square in squares], max(0, len(ids) - 1))


class _Weighed(NamedTuple):
    """A caption as CIDEr compares it."""

    weights: dict[Ngram, float]  # tf-idf of its n-grams
    norms: list[float]  # of these weights, for each n
    length: int

    def similarity(self, reference: _Weighed) -> float:
        """Mean over n of the clipped cosine, less for another length; 0 to 1."""
        products = [0.0] * MAX_NGRAM
        for ngram, weight in self.weights.items():
            other = reference.weights.get(ngram, 0.0)
            products[len(ngram) - 1] += min(weight, other) * other
        norms = [mine * theirs for mine, theirs in zip(self.norms, reference.norms, strict=True)]
        cosines = [product / norm for product, norm in zip(products, norms, strict=True) if norm]
        apart = self.length - reference.length
        return math.exp(-(apart**2) / (2 * SIGMA**2)) * sum(cosines) / MAX_NGRAM
