"""What training minimizes: cross-entropy of the words, and the doubly stochastic term."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Loss(NamedTuple):
    """The two parts of the loss, each a mean over its own unit."""

    cross_entropy: Tensor  # nats a word
    doubly_stochastic: Tensor  # see doubly_stochastic_penalty


def captioning_loss(logits: Tensor, targets: Tensor, alphas: Tensor, *, label_smoothing: float) -> Loss:
    """The loss of a batch.

    Args:
        logits: (words, V).
        targets: (words,) the true ids; there is no padding among them.
        alphas: (N, T, L), zero after the end of a caption.
        label_smoothing: share of the probability spread over the whole vocabulary, 0 to 1.
    """
    return Loss(
        nn.functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing),
        doubly_stochastic_penalty(alphas),
    )


def doubly_stochastic_penalty(alphas: Tensor) -> Tensor:
    """How unevenly a caption as a whole looked: mean over captions and locations of (1 - sum_t alpha_ti)^2.

    Xu et al. 2015, eq. 14, which sums over the locations where this takes the mean, so that its
    weight means the same for any grid. ``alphas``: (N, T, L), zero after the end of a caption.
    """
    return torch.square(1 - alphas.sum(dim=1)).mean()
