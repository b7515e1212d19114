"""Soft attention: a score per location, a softmax over them, and the expected annotation."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from model.attention.interface import (
    AttentionMaps,
    Memory,
    Query,
    Sizes,
    attention_kind,
    weighted_sum,
)
from model.attention.smoothing import ScoreSmoothing
from model.errors import CheckpointError


@attention_kind("none")
class NoAttention(nn.Module):
    """No attention: the same context for every word, z = W mean_i(a_i); there is no map.

    The plain encoder-decoder: Vinyals et al. 2015 (arXiv 1411.4555), fed at every step.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.context_layer = nn.Linear(sizes.annotation, sizes.annotation)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The context itself, (N, D)."""
        return (self.context_layer(annotations.mean(dim=1)),)

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        return memory.prepared[0], AttentionMaps()


@attention_kind("uniform")
class UniformAttention(nn.Module):
    """Uniform weights, alpha_ti = 1 / L: a control without a choice of locations."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The weights, (N, L), and the mean annotation, (N, D)."""
        rows, locations, _ = annotations.shape
        weights = annotations.new_full((rows, locations), 1 / locations, dtype=torch.float32)
        return weights, annotations.mean(dim=1)

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        alpha, context = memory.prepared
        return context, AttentionMaps(alpha)


class SoftAttention(nn.Module, ABC):
    """alpha_t = softmax(e_t), z_t = sum_i alpha_ti a_i (Xu et al. 2015, eqs. 5 and 13); a kind gives e_t."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.smooth = ScoreSmoothing(sizes)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """What the scores need of the annotations (N, L, D); nothing, unless a kind says so."""
        return ()

    @abstractmethod
    def scores(self, query: Query, memory: Memory) -> Tensor:
        """e_ti of every location, (N, L), before smoothing and softmax."""

    def weights(self, query: Query, memory: Memory) -> Tensor:
        """alpha_t, (N, L)."""
        scores: Tensor = self.smooth(self.scores(query, memory))
        return scores.softmax(dim=1)

    def values(self, memory: Memory) -> Tensor:
        """What is averaged under the weights, (N, L, D): the annotations, unless they are projected first."""
        return memory.annotations

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        """The context vector, (N, D), and the map."""
        alpha = self.weights(query, memory)
        return weighted_sum(alpha, self.values(memory)), AttentionMaps(alpha)


@attention_kind("additive_sum")
class AdditiveSumAttention(SoftAttention):
    """e_ti = sum over units of tanh(W [q_t; a_i] + b): additive attention with v fixed to ones.

    W [q; a] is W_q q + W_k a, so W_k a is computed once per image.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.key_layer = nn.Linear(sizes.annotation, sizes.attention)
        self.query_layer = nn.Linear(sizes.query, sizes.attention, bias=False)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The keys W_k a_i + b, (N, L, A)."""
        return (self.key_layer(annotations),)

    def scores(self, query: Query, memory: Memory) -> Tensor:
        return self.compare(query, memory.prepared[0])

    def compare(self, query: Query, keys: Tensor) -> Tensor:
        """The scores of any keys (N, L, A): (N, L)."""
        return torch.tanh(keys + self.query_layer(query.vector).unsqueeze(1)).sum(dim=2)


@attention_kind("additive")
class AdditiveAttention(AdditiveSumAttention):
    """e_ti = v . tanh(W_q q_t + W_k a_i + b): Bahdanau et al. 2014 (1409.0473); Xu et al. 2015, eq. 4."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.energy_layer = nn.Linear(sizes.attention, 1, bias=False)

    def compare(self, query: Query, keys: Tensor) -> Tensor:
        energies: Tensor = self.energy_layer(torch.tanh(keys + self.query_layer(query.vector).unsqueeze(1)))
        return energies.squeeze(2)


@attention_kind("location")
class LocationAttention(SoftAttention):
    """e_t = W [E y_(t-1); h_(t-1)] + b, all L scores at once: Luong et al. 2015 (1508.04025), eq. 8.

    It does not use the annotations: tied to the grid it was trained on, it learns where objects tend to be.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.score_layer = nn.Linear(sizes.embedding + sizes.hidden, sizes.rows * sizes.columns)

    def scores(self, query: Query, memory: Memory) -> Tensor:
        scores: Tensor = self.score_layer(torch.cat((query.word, query.hidden), dim=1))
        return scores


@attention_kind("dot")
class DotAttention(SoftAttention):
    """e_ti = q_t . a_i, for queries and annotations of one dimension: Luong et al. 2015, "dot"."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        if sizes.query != sizes.annotation:
            raise CheckpointError(
                f"Dot attention cannot compare queries of dimension {sizes.query} with annotations of "
                f"dimension {sizes.annotation}; it needs hidden_dim and annotation_dim equal and the query "
                "'state', or use 'general'."
            )

    def scores(self, query: Query, memory: Memory) -> Tensor:
        return dot_products(query.vector, memory.annotations)


@attention_kind("general")
class GeneralAttention(SoftAttention):
    """e_ti = q_t . W a_i: Luong et al. 2015, "general"."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.key_layer = nn.Linear(sizes.annotation, sizes.query, bias=False)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The keys W a_i, (N, L, Q)."""
        return (self.key_layer(annotations),)

    def scores(self, query: Query, memory: Memory) -> Tensor:
        return dot_products(query.vector, memory.prepared[0])


@attention_kind("scaled_dot")
class ScaledDotAttention(SoftAttention):
    """e_ti = (W_q q_t) . (W_k a_i) / sqrt(A), z_t = sum_i alpha_ti W_v a_i: Vaswani et al. 2017, eq. 1."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.query_layer = nn.Linear(sizes.query, sizes.attention)
        self.key_layer = nn.Linear(sizes.annotation, sizes.attention)
        self.value_layer = nn.Linear(sizes.annotation, sizes.annotation)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The keys W_k a_i, (N, L, A), and the values W_v a_i, (N, L, D)."""
        return self.key_layer(annotations), self.value_layer(annotations)

    def scores(self, query: Query, memory: Memory) -> Tensor:
        keys = memory.prepared[0]
        return dot_products(self.query_layer(query.vector), keys) / math.sqrt(keys.shape[2])

    def values(self, memory: Memory) -> Tensor:
        return memory.prepared[1]


@attention_kind("multi_head")
class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in M heads of A / M units, projected: Vaswani et al. 2017, 3.2.2."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        if sizes.attention % sizes.heads:
            raise CheckpointError(
                f"Attention of dimension {sizes.attention} cannot be split into {sizes.heads} heads; "
                "attention_dim must be a multiple of attention_heads."
            )
        self.smooth = ScoreSmoothing(sizes)
        self.heads = sizes.heads
        self.query_layer = nn.Linear(sizes.query, sizes.attention)
        self.key_layer = nn.Linear(sizes.annotation, sizes.attention)
        self.value_layer = nn.Linear(sizes.annotation, sizes.attention)
        self.output_layer = nn.Linear(sizes.attention, sizes.annotation)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The keys and the values of every head, (N, M, L, A / M) each."""
        return self._split(self.key_layer(annotations)), self._split(self.value_layer(annotations))

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        keys, values = memory.prepared
        queries = self._split(self.query_layer(query.vector).unsqueeze(1))  # (N, M, 1, A / M)
        scores = (queries @ keys.transpose(2, 3)).squeeze(2) / math.sqrt(keys.shape[3])  # (N, M, L)
        heads = self.smooth(scores).softmax(dim=2)
        joined = (heads.unsqueeze(2).to(values.dtype) @ values).flatten(1)  # (N, A)
        return self.output_layer(joined), AttentionMaps(heads.mean(dim=1), heads=heads)

    def _split(self, whole: Tensor) -> Tensor:
        """(N, L, A) to (N, M, L, A / M)."""
        return whole.view(*whole.shape[:2], self.heads, -1).transpose(1, 2)


def dot_products(query: Tensor, keys: Tensor) -> Tensor:
    """(N, Q) and (N, L, Q) to (N, L)."""
    return torch.bmm(keys, query.unsqueeze(2).to(keys.dtype)).squeeze(2)
