"""Labels: what an image shows by single names, such as "espresso", beside its captions.

A label head learns them from the probabilities of any image classifier (distillation, Hinton et al. 2015,
arXiv 1503.02531), so it also knows things that no training caption names.

Dimension key: B images, L locations, F features of one, K labels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.caption import Label
from model.grid_classifier import GridClassifier

MAX_LABELS = 5  # of an image
MIN_PROBABILITY = 0.1  # of a label worth showing
MAX_NAME_BYTES = 64  # of a label's name in UTF-8


class LabelHead(GridClassifier):
    """From the features of an image to the log-odds of each label; knows their names."""

    names: Tensor  # (K, MAX_NAME_BYTES), uint8: UTF-8, padded with zeros

    def __init__(self, feature_dim: int, labels: int, width: int) -> None:
        """``feature_dim`` F, ``labels`` K; ``width`` of the two hidden layers."""
        super().__init__(feature_dim, labels, width)
        self.register_buffer("names", torch.zeros(labels, MAX_NAME_BYTES, dtype=torch.uint8))

    def fill(self, names: Sequence[str]) -> None:
        """Copy the names, as many as there are labels, of at most ``MAX_NAME_BYTES`` each."""
        for row, name in zip(self.names, names, strict=True):
            data = name.encode()
            row[: len(data)] = torch.tensor([*data], dtype=torch.uint8)

    def name(self, index: int) -> str:
        """The name of a label."""
        return bytes(self.names[index].tolist()).rstrip(b"\0").decode()

    def best(self, features: Tensor) -> list[tuple[Label, ...]]:
        """The labels of B images from the encoder's features (B, L, F), the most probable first.

        At most ``MAX_LABELS`` each, with a probability of at least ``MIN_PROBABILITY``.
        """
        probabilities = self(features).sigmoid()
        values, indices = probabilities.topk(min(MAX_LABELS, probabilities.shape[1]))
        return [
            tuple(
                Label(name=self.name(index), probability=value)
                for value, index in zip(of_image, places, strict=True)
                if value >= MIN_PROBABILITY
            )
            for of_image, places in zip(values.tolist(), indices.tolist(), strict=True)
        ]
