"""What the tests of attention share: every kind in small sizes, and questions to put to it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import ATTENTION_KINDS, Attention, AttentionMaps, Memory, Query, Sizes, build_attention

N, D, H, E, A, M = 4, 6, 9, 5, 8, 2
ROWS, COLUMNS = 3, 7
L = ROWS * COLUMNS
KINDS = tuple(ATTENTION_KINDS)
WITH_MAPS = tuple(kind for kind in KINDS if kind != "none")  # that kind has no weights


def sizes_for(kind: str, query: str = "state", rows: int = ROWS, columns: int = COLUMNS) -> Sizes:
    """All different, but where dot attention needs two of one width."""
    query_dim = H if query == "state" else H + E
    return Sizes(query_dim if kind == "dot" else D, query_dim, H, E, A, M, rows, columns)


def make_attention(kind: str, query: str = "state", seed: int = 3, scale: float = 2.0) -> nn.Module:
    """A kind in evaluation mode, with random weights so large that its maps are far from even."""
    torch.manual_seed(seed)
    attention = build_attention(kind, sizes_for(kind, query))
    assert isinstance(attention, nn.Module)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.mul_(scale)
    return attention.eval()


def make_query(query: str = "state", seed: int = 1, count: int = N, position: int = 4) -> Query:
    """What a decoder might ask with."""
    generator = torch.Generator().manual_seed(seed)
    hidden, cell = (torch.randn(count, H, generator=generator) for _ in range(2))
    word = torch.randn(count, E, generator=generator)
    vector = hidden if query == "state" else torch.cat((hidden, word), dim=1)
    return Query(vector, hidden, cell, word, position)


def make_annotations(kind: str, query: str = "state", seed: int = 2, count: int = N) -> Tensor:
    """As wide as the kind needs them, (N, L, D)."""
    width = sizes_for(kind, query).annotation
    return torch.randn(count, L, width, generator=torch.Generator().manual_seed(seed))


def prepare(attention: Attention, annotations: Tensor, draw_seed: int | None = None) -> Memory:
    """What the decoder would have the kind attend to."""
    return Memory(annotations, attention.prepare(annotations), draw_seed)


class AttentionOutput(NamedTuple):
    """What a kind returns."""

    context: Tensor
    maps: AttentionMaps


def attend(attention: Attention, query: Query, memory: Memory) -> AttentionOutput:
    """One step of a kind."""
    return AttentionOutput(*attention(query, memory))


@torch.no_grad()
def attend_as(kind: str, query: str = "state") -> AttentionOutput:
    """One step of a kind on the usual images with the usual query."""
    attention = make_attention(kind, query)
    return attend(attention, make_query(query), prepare(attention, make_annotations(kind, query)))


def select_query(query: Query, rows: slice) -> Query:
    """The question of some of the rows."""
    return Query(query.vector[rows], query.hidden[rows], query.cell[rows], query.word[rows], query.position)
