"""A classifier that sees the feature grid and not only its mean.

Dimension key: B images, L locations, F features of one, K outputs.
"""

import math

import torch
from torch import Tensor, nn


class GridClassifier(nn.Module):
    """From the features of an image to log-odds of K independent outcomes.

    The sum of two terms: one from the mean over the grid, and one from each cell by itself, pooled by
    log-sum-exp with a sharpness that is learnt for each output, between the mean and the maximum (Pinheiro
    and Collobert 2015, arXiv 1411.6228).
    """

    def __init__(self, feature_dim: int, outputs: int, width: int) -> None:
        """``feature_dim`` F, ``outputs`` K; ``width`` of the two hidden layers."""
        super().__init__()
        self.hidden = nn.Linear(feature_dim, width)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, outputs)
        self.cell_hidden = nn.Linear(feature_dim, width)
        self.cell_norm = nn.LayerNorm(width)
        self.cell_output = nn.Linear(width, outputs, bias=False)
        self.sharpness = nn.Parameter(torch.zeros(outputs))  # its logarithm

    def forward(self, features: Tensor) -> Tensor:
        """The encoder's features (B, L, F) to log-odds (B, K), float32."""
        return (self.overall(features.mean(dim=1)) + self.pooled(features)).float()

    def overall(self, mean: Tensor, dropout: float = 0.0) -> Tensor:
        """The term of the mean features, (B, F) to (B, K); ``dropout`` of hidden units."""
        hidden = nn.functional.gelu(self.norm(self.hidden(mean)))
        logits: Tensor = self.output(nn.functional.dropout(hidden, dropout))
        return logits

    def pooled(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """The term of the cells, a soft maximum over them, (B, L, F) to (B, K)."""
        sharpness = self.sharpness.exp()
        total = torch.logsumexp(self.cells(features, dropout) * sharpness, dim=1)
        logits: Tensor = (total - math.log(features.shape[1])) / sharpness
        return logits

    def cells(self, features: Tensor, dropout: float = 0.0) -> Tensor:
        """The term of every cell by itself, (B, L, F) to (B, L, K)."""
        hidden = nn.functional.gelu(self.cell_norm(self.cell_hidden(features)))
        logits: Tensor = self.cell_output(nn.functional.dropout(hidden, dropout))
        return logits
