"""Word evidence: which words an image supports by themselves, and how much of it reaches the decoder.

A decoder writes fluently: of an image unlike the training images it writes what captions usually say, and a
cup of coffee becomes a boy with a ball. A detector predicts each of some thousand words by itself, from every
cell of the feature grid (Fang et al. 2015, "From Captions to Visual Concepts and Back", arXiv 1411.4952), and
is less easily misled. The evidence of a word is how far the image moves its log-odds from those of the mean
training image. Times a learnt gate, it is added to the decoder's logits.

Dimension key: B images, N rows, L locations, F features of one, W words with evidence, V vocabulary,
D annotation, H hidden.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from model.grid_classifier import GridClassifier
from model.vocabulary import Vocabulary

MAX_EVIDENCE = 3.0  # nats, for or against: no detector is so sure that the decoder could not overrule it


class Evidence(NamedTuple):
    """The evidence of every word, one row per caption."""

    words: Tensor  # (N, V), change of each word's log-odds in nats, clipped; 0 for words without a detector
    image: Tensor  # (N, 1), the image's term in the gate

    def select(self, rows: Tensor | slice) -> Self:
        """The evidence of some of the rows; an index may repeat."""
        return self._replace(words=self.words[rows], image=self.image[rows])


class WordDetector(GridClassifier):
    """From the features of an image to the log-odds that a caption uses each word."""

    ids: Tensor  # (W,), int32, of the words
    base: Tensor  # (W,), log-odds of each word for the mean training image

    def __init__(self, feature_dim: int, words: int, width: int) -> None:
        """``feature_dim`` F, ``words`` W; ``width`` of the two hidden layers."""
        super().__init__(feature_dim, words, width)
        self.register_buffer("ids", torch.full((words,), Vocabulary.unk_id, dtype=torch.int32))
        self.register_buffer("base", torch.zeros(words))

    @torch.no_grad()
    def evidence(self, features: Tensor, vocabulary_size: int) -> Tensor:
        """The evidence of every word, (B, V), from the encoder's features (B, L, F).

        Without gradient: captions would teach the detector to please the decoder.
        """
        log_odds: Tensor = self(features)
        change = (log_odds - self.base).clamp(-MAX_EVIDENCE, MAX_EVIDENCE)
        return change.new_zeros(len(change), vocabulary_size).index_copy(1, self.ids.long(), change)


class EvidenceGate(nn.Module):
    """The weight of the evidence in a step, 0 to 2, from the decoder's state and from the image.

    On images like the training images the decoder needs less of it.
    """

    def __init__(self, hidden_dim: int, annotation_dim: int) -> None:
        super().__init__()
        self.state = nn.Linear(hidden_dim, 1)
        self.image = nn.Linear(annotation_dim, 1, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)  # training starts from a weight of 1

    def forward(self, hidden: Tensor, evidence: Evidence) -> Tensor:
        """What to add to the logits, (N, V), in states (N, H)."""
        return 2 * torch.sigmoid(self.state(hidden) + evidence.image) * evidence.words
