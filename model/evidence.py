"""Which words an image supports, and how much the decoder listens to that.

A decoder writes fluently: of an image unlike those it was trained on it writes what people usually say, and a
cup of coffee becomes a boy with a ball. Detectors of words are less easily led. They predict each of some
thousand words by itself, from every cell of the feature grid (Fang et al. 2015, "From Captions to Visual
Concepts and Back", arXiv 1411.4952). How far the odds of a word lie above or below those on the average image
is its evidence. It is added to the decoder's logits, times a gate.

Dimension key: B images, N rows (captions or hypotheses), L cells, F features of one, W words with evidence,
V vocabulary, D annotation, H hidden.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.vocabulary import Vocabulary

LARGEST = 3.0  # nats, up or down: no detector is so sure that nothing could overrule it


class Evidence(NamedTuple):
    """What speaks for and against every word of the vocabulary, one row a caption."""

    words: Tensor  # (N, V) change of each word's log-odds by the image, clipped; 0 where nothing is known
    image: Tensor  # (N, 1) the image's part in the gate

    def select(self, rows: Tensor | slice) -> Evidence:
        """The evidence of some of the rows; an index may repeat."""
        return Evidence(self.words[rows], self.image[rows])


class WordDetector(nn.Module):
    """From the features of an image to the log-odds that a person would use each word.

    The sum of two readings: one of the mean over the grid; and one of every cell by itself, pooled by
    log-sum-exp with a sharpness that each word learns, between the mean and the maximum (Pinheiro and
    Collobert 2015, arXiv 1411.6228). The latter says where the word's evidence is.
    """

    ids: Tensor  # (W,), int32, of the words
    base: Tensor  # (W,), log-odds of each word on the average training image

    def __init__(self, feature_dim: int, words: int, width: int) -> None:
        """``feature_dim`` F, ``words`` W; a layer of ``width`` in each of the readings."""
        super().__init__()
        self.hidden = nn.Linear(feature_dim, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, words)
        self.cell_hidden = nn.Linear(feature_dim, width)
        self.cell_norm = nn.LayerNorm(width)
        self.cell_output = nn.Linear(width, words, bias=False)
        self.sharpness = nn.Parameter(torch.zeros(words))  # its logarithm
        self.register_buffer("ids", torch.full((words,), Vocabulary.unk_id, dtype=torch.int32))
        self.register_buffer("base", torch.zeros(words))

    def forward(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """Features (B, L, F), as the encoder gives them, to log-odds (B, W); ``dropout`` of hidden units."""
        hidden = nn.functional.gelu(self.norm(self.hidden(features.mean(dim=1))))
        overall: Tensor = self.output(nn.functional.dropout(hidden, dropout))
        return overall + self.pool(self.cells(features, dropout))

    def cells(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """What every cell says of each word, (B, L, W), nats; only their differences matter."""
        hidden = nn.functional.gelu(self.cell_norm(self.cell_hidden(features)))
        cells: Tensor = self.cell_output(nn.functional.dropout(hidden, dropout))
        return cells

    def pool(self, cells: Tensor) -> Tensor:
        """The soft maximum over the cells, (B, L, W) to (B, W)."""
        sharpness = self.sharpness.exp()
        return (torch.logsumexp(cells * sharpness, dim=1) - math.log(cells.shape[1])) / sharpness

    @torch.no_grad()
    def evidence(self, features: Tensor, vocabulary_size: int) -> Tensor:
        """How far the image moves the log-odds of every word, (B, V), clipped to LARGEST.

        Without gradients: captions would teach the detectors to please the decoder.
        """
        change = (self(features).float() - self.base).clamp(-LARGEST, LARGEST)
        return change.new_zeros(len(change), vocabulary_size).index_copy(1, self.ids.long(), change)


class EvidenceGate(nn.Module):
    """How much evidence counts at a step, 0 to 2: by what is being written, and by how familiar the image is.

    On images like the training images the decoder is right by itself. Both parts are learned.
    """

    def __init__(self, hidden_dim: int, annotation_dim: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden_dim, 1)
        self.image = nn.Linear(annotation_dim, 1, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, evidence: Evidence) -> Tensor:
        """The gate (N, 1), for states (N, H)."""
        return 2 * torch.sigmoid(self.state(hidden) + evidence.image)
