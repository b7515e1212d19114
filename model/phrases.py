"""The phrase head: predicts which phrases people would use of an image, to rerank the captions in the beam.

The decoder has a good caption among its first few far more often than it ranks it first. A much smaller head
on the same features predicts, for each of some thousand phrases of one to four words, the share of people
describing the image who would use it: detectors as in Fang et al. 2015, "From Captions to Visual Concepts and
Back" (arXiv 1411.4952), of whole n-grams. Captions are then scored by their expected CIDEr against those
people, a consensus as in Devlin et al. 2015 (arXiv 1505.04467), but without the captions of similar training
images, which this program does not store.

Dimension key: B images, L locations, F features of one, P phrases.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary, count_ngrams


class PhraseHead(nn.Module):
    """From the features of an image to the share of people who would use each phrase.

    It uses the mean over the grid: what is in the image, not where.
    """

    ids: Tensor  # (P, MAX_NGRAM), int32, a phrase a row, padded with Vocabulary.pad_id
    idf: Tensor  # (P,), weight of each phrase in CIDEr: log of its inverse document frequency in training

    def __init__(self, feature_dim: int, phrases: int, width: int) -> None:
        """``feature_dim`` F, ``phrases`` P; ``width`` of the hidden layer."""
        super().__init__()
        self.hidden = nn.Linear(feature_dim, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, phrases)
        self.register_buffer("ids", torch.full((phrases, MAX_NGRAM), Vocabulary.pad_id, dtype=torch.int32))
        self.register_buffer("idf", torch.zeros(phrases))

    def forward(self, features: Tensor) -> Tensor:
        """The encoder's features (B, L, F) to shares (B, P), 0 to 1."""
        return self.logits(features.mean(dim=1)).sigmoid()

    def logits(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """Logits of the shares, (B, P), float32, from mean features (B, F); ``dropout`` of hidden units."""
        hidden = nn.functional.gelu(self.norm(self.hidden(pooled)))
        logits: Tensor = self.output(nn.functional.dropout(hidden, dropout)).float()
        return logits


class PhraseScorer:
    """Scores captions by the phrases of a ``PhraseHead``, whose table it reads once."""

    def __init__(self, head: PhraseHead) -> None:
        """``head``: trained; later changes to its table have no effect."""
        self._idf = head.idf.tolist()
        self._positions: dict[Ngram, int] = {
            tuple(index for index in row if index != Vocabulary.pad_id): position
            for position, row in enumerate(head.ids.tolist())
        }
        self._max_idf = max(self._idf, default=0.0)  # of phrases not in the table, which are rarer still

    def score(self, ids: Sequence[int], shares: Sequence[float]) -> float:
        """The expected CIDEr against people's captions, as far as it depends on the caption.

        The mean over n of the expected dot product of the caption's n-gram vector, of length 1, with that of
        a person: CIDEr (Vedantam et al. 2015, eq. 2) without the length of the person's vector, which
        is unknown.

        Args:
            ids: of a partial caption, or of a caption with its end token, which counts as a word: otherwise
                a caption would gain by stopping before its last noun ("on top of a white").
            shares: (P,), of its image, as the head predicts them.

        Returns:
            0 or more, usually below 3.
        """
        squares, products = [0.0] * MAX_NGRAM, [0.0] * MAX_NGRAM
        for ngram, count in count_ngrams(ids).items():
            position = self._positions.get(ngram)
            weight = count * (self._max_idf if position is None else self._idf[position])
            squares[len(ngram) - 1] += weight**2
            if position is not None:
                products[len(ngram) - 1] += weight * self._idf[position] * shares[position]
        pairs = zip(products, squares, strict=True)
        return sum(product / math.sqrt(square) for product, square in pairs if square) / MAX_NGRAM
