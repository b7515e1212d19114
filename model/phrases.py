"""Which phrases people would say of a photo: what the best of several captions is chosen by.

The decoder finds a good caption among its first few far more often than it puts it first. A second, much
smaller reader of the same features predicts, of each of some thousand phrases of one to four words, how
many of the people who describe the photo would use it: detectors as in Fang et al. 2015, "From Captions
to Visual Concepts and Back" (arXiv 1411.4952), of whole n-grams. The caption that says what most would say is
then taken, as a consensus is in Devlin et al. 2015 (arXiv 1505.04467), there with what was said of similar
photos, which this program cannot carry with it.

Dimension key: B photos, L locations, F features of one, P phrases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary, count_ngrams


class PhraseHead(nn.Module):
    """From the features of a photo to the share of people who would use each phrase.

    It sees the mean over the grid: what is on the photo, not where.
    """

    ids: Tensor  # (P, MAX_NGRAM), int32, a phrase a row, filled up with Vocabulary.pad_id
    idf: Tensor  # (P,), the weight of a phrase in CIDEr: log of how rare it is among the training photos

    def __init__(self, feature_dim: int, phrases: int, width: int) -> None:
        """``feature_dim`` F, ``phrases`` P; a layer of ``width`` between them."""
        super().__init__()
        self.hidden = nn.Linear(feature_dim, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, phrases)
        self.register_buffer("ids", torch.full((phrases, MAX_NGRAM), Vocabulary.pad_id, dtype=torch.int32))
        self.register_buffer("idf", torch.zeros(phrases))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, L, F), as the encoder gives them, to shares (B, P), 0 to 1."""
        return self.logits(features.mean(dim=1)).sigmoid()

    def logits(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """Of the shares, (B, P), float32, from mean features (B, F); ``dropout`` of hidden units."""
        hidden = nn.functional.gelu(self.norm(self.hidden(pooled)))
        logits: Tensor = self.output(nn.functional.dropout(hidden, dropout)).float()
        return logits


class PhraseJudge:
    """How much of what people would say a caption says; reads the table of a ``PhraseHead`` once."""

    def __init__(self, head: PhraseHead) -> None:
        """``head``: trained; later changes of its table are not seen."""
        self._idf = head.idf.tolist()
        self._places: dict[Ngram, int] = {
            tuple(index for index in row if index != Vocabulary.pad_id): place
            for place, row in enumerate(head.ids.tolist())
        }
        self._largest = max(self._idf, default=0.0)  # of phrases the table lacks: they are rarer still

    def agreement(self, ids: Sequence[int], shares: Sequence[float]) -> float:
        """What CIDEr against people's captions would be, as far as it depends on the caption.

        The mean over n of the expected product of the caption's n-grams, as a vector of length 1, with those
        of a person's: CIDEr (Vedantam et al. 2015, eq. 2) without the length of the person's vector, which
        nobody knows.

        Args:
            ids: of a beginning, or of a caption with its end token, which counts as a word: without that a
                caption gains by stopping before its last noun ("on top of a white").
            shares: (P,), of its photo, as the head gives them.

        Returns:
            0 or more, usually below 3.
        """
        squares, products = [0.0] * MAX_NGRAM, [0.0] * MAX_NGRAM
        for ngram, count in count_ngrams(ids).items():
            place = self._places.get(ngram)
            weight = count * (self._largest if place is None else self._idf[place])
            squares[len(ngram) - 1] += weight**2
            if place is not None:
                products[len(ngram) - 1] += weight * self._idf[place] * shares[place]
        pairs = zip(products, squares, strict=True)
        return sum(product / math.sqrt(square) for product, square in pairs if square) / MAX_NGRAM
