"""CIDEr-D as a reward of sampled captions.

Vedantam, Zitnick and Parikh 2015, "CIDEr: Consensus-based Image Description Evaluation" (arXiv
1411.5726), in the variant CIDEr-D of the COCO caption evaluation. pycocoevalcap takes the document
frequencies from the captions of one call; a reward needs those of the whole training set.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from model.vocabulary import MAX_NGRAM, Ngram, count_ngrams

SIGMA = 6.0  # tokens, of the Gaussian length penalty


class _TfIdf(NamedTuple):
    weights: dict[Ngram, float]  # of each n-gram
    norms: list[float]  # of the weights, for each n
    length: int

    def similarity(self, reference: Self) -> float:
        """Mean over n of the clipped cosine, times the length penalty; 0 to 1."""
        products = [0.0] * MAX_NGRAM
        for ngram, weight in self.weights.items():
            other = reference.weights.get(ngram, 0.0)
            products[len(ngram) - 1] += min(weight, other) * other
        norms = [own * others for own, others in zip(self.norms, reference.norms, strict=True)]
        cosines = [product / norm for product, norm in zip(products, norms, strict=True) if norm]
        difference = self.length - reference.length
        return math.exp(-(difference**2) / (2 * SIGMA**2)) * sum(cosines) / MAX_NGRAM


class CiderReward:
    """CIDEr-D of captions as ids, with the document frequencies of a training set.

    Finished captions include the end token, which counts as a word: otherwise stopping before the last
    noun phrase is complete ("a dog on a") would pay.
    """

    def __init__(self, captions: Iterable[Sequence[Sequence[int]]]) -> None:
        """``captions``: the references of every training image, as ids."""
        self._documents: Counter[Ngram] = Counter()
        images = 0
        for references in captions:
            images += 1
            self._documents.update({ngram for ids in references for ngram in count_ngrams(ids)})
        self._log_images = math.log(max(images, 1))

    def score(self, candidates: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> list[float]:
        """Score each candidate against all ``references`` (one or more) of an image, 0 to 10.

        A published score of 60 is 0.6 here.
        """
        targets = [self._weigh(ids) for ids in references]
        return [
            10 * sum(candidate.similarity(target) for target in targets) / len(targets)
            for candidate in map(self._weigh, candidates)
        ]

    def _weigh(self, ids: Sequence[int]) -> _TfIdf:
        weights: dict[Ngram, float] = {}
        squares = [0.0] * MAX_NGRAM
        for ngram, count in count_ngrams(ids).items():
            rarity = self._log_images - math.log(max(1, self._documents[ngram]))
            weights[ngram] = count * rarity
            squares[len(ngram) - 1] += weights[ngram] ** 2
        # The COCO evaluation takes the number of bigrams as the length.
        return _TfIdf(weights, [math.sqrt(square) for square in squares], max(0, len(ids) - 1))
