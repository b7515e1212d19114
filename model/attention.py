"""The attention mechanisms: given what the decoder is about to say, where to look.

Each kind is one class under one name, with one interface: keys are made once for a photograph, then
every step turns a query into weights over the locations and a context. A kind keeps nothing between
calls, so one network can serve several threads. Dimension key: N captions, L locations,
D annotation, H hidden, A attention.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from model.errors import CheckpointError


class Attended(NamedTuple):
    """What one look at the photographs gave."""

    context: Tensor  # (N, D)
    alpha: Tensor  # (N, L), never negative, sums to 1 over the locations


class Attention(Protocol):
    """What the decoder asks of a kind of attention."""

    def keys(self, annotations: Tensor) -> Tensor:
        """What the queries are compared with, computed once a photograph: (N, L, D) to (N, L, A)."""
        ...

    def __call__(self, query: Tensor, keys: Tensor, annotations: Tensor) -> Attended:
        """One look: query (N, H), keys (N, L, A), annotations (N, L, D)."""
        ...


class AdditiveAttention(nn.Module):
    """Soft additive attention: Bahdanau et al. 2014, used by Xu et al. 2015 (eqs. 4 and 5, section 4.2).

    e_ti = v . tanh(W_q h_(t-1) + W_k a_i);  alpha_t = softmax(e_t);  z_t = sum_i alpha_ti a_i
    """

    def __init__(self, annotation_dim: int, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.key_layer = nn.Linear(annotation_dim, attention_dim)
        self.query_layer = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.energy_layer = nn.Linear(attention_dim, 1, bias=False)

    def keys(self, annotations: Tensor) -> Tensor:
        """W_k a_i for every location: (N, L, D) to (N, L, A)."""
        keys: Tensor = self.key_layer(annotations)
        return keys

    def forward(self, query: Tensor, keys: Tensor, annotations: Tensor) -> Attended:
        """One look: query (N, H), keys (N, L, A), annotations (N, L, D)."""
        energies = self.energy_layer(torch.tanh(keys + self.query_layer(query).unsqueeze(1)))  # (N, L, 1)
        alpha = energies.squeeze(2).float().softmax(dim=1)  # (N, L), in float32 under mixed precision too
        return Attended(weighted_sum(alpha, annotations), alpha)


def weighted_sum(alpha: Tensor, annotations: Tensor) -> Tensor:
    """The expected annotation under ``alpha``: (N, L) and (N, L, D) to (N, D)."""
    return torch.bmm(alpha.unsqueeze(1).to(annotations.dtype), annotations).squeeze(1)


ATTENTION_KINDS = {"additive": AdditiveAttention}


def build_attention(kind: str, annotation_dim: int, hidden_dim: int, attention_dim: int) -> Attention:
    """The attention of that name, with random weights.

    Raises:
        CheckpointError: there is no such kind.
    """
    if kind not in ATTENTION_KINDS:
        raise CheckpointError(
            f"There is no attention kind {kind!r}; choose one of {', '.join(ATTENTION_KINDS)}."
        )
    return ATTENTION_KINDS[kind](annotation_dim, hidden_dim, attention_dim)
