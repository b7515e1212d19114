"""The attention mechanisms: given what the decoder is about to say, where to look.

Each kind is one class under one name, with the one interface of ``model.attention.interface``; nothing
outside this package knows which kind it deals with. docs/attention.md explains the family.
"""

from __future__ import annotations

from collections.abc import Callable

from model.attention.hard import HardAttention
from model.attention.interface import Attended, Attention, Look, Memory, Query, Sizes
from model.attention.local import MonotonicLocalAttention, PredictiveLocalAttention
from model.attention.sentinel import SentinelAttention
from model.attention.soft import (
    AdditiveAttention,
    AdditiveSumAttention,
    DotAttention,
    GeneralAttention,
    LocationAttention,
    MultiHeadAttention,
    NoAttention,
    ScaledDotAttention,
    UniformAttention,
)
from model.errors import CheckpointError

__all__ = [
    "ATTENTION_KINDS",
    "Attended",
    "Attention",
    "Look",
    "Memory",
    "Query",
    "Sizes",
    "build_attention",
]

ATTENTION_KINDS: dict[str, Callable[[Sizes], Attention]] = {
    "none": NoAttention,
    "uniform": UniformAttention,
    "additive": AdditiveAttention,
    "additive_sum": AdditiveSumAttention,
    "location": LocationAttention,
    "dot": DotAttention,
    "general": GeneralAttention,
    "scaled_dot": ScaledDotAttention,
    "multi_head": MultiHeadAttention,
    "local_m": MonotonicLocalAttention,
    "local_p": PredictiveLocalAttention,
    "sentinel": SentinelAttention,
    "hard": HardAttention,
}


def build_attention(kind: str, sizes: Sizes) -> Attention:
    """The attention of that name, with random weights.

    Raises:
        CheckpointError: there is no such kind, or it cannot have these sizes.
    """
    if kind not in tuple(ATTENTION_KINDS):  # a damaged file may hold what no dictionary can be asked for
        raise CheckpointError(
            f"There is no attention kind {kind!r}; choose one of {', '.join(ATTENTION_KINDS)}."
        )
    return ATTENTION_KINDS[kind](sizes)
