"""The interface of the attention mechanisms to the decoder, and the registry of their names.

Before the first word a mechanism precomputes what it needs of the images; every step then turns a query into
a context vector and attention maps. A mechanism stores nothing between calls, so one network can serve
several threads.
Dimension key: N captions (rows), L locations, D annotation, Q query, H hidden, E embedding, A attention,
M heads.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from model.evidence import Evidence


class Sizes(NamedTuple):
    """The sizes a mechanism is built for."""

    annotation: int  # D
    query: int  # Q, of Query.vector: H or H + E
    hidden: int  # H
    embedding: int  # E
    attention: int  # A
    heads: int  # M
    rows: int  # of the grid; L = rows * columns, row by row
    columns: int
    score_blur: int = 0  # see ScoreSmoothing


class Query(NamedTuple):
    """The decoder's state at the time of attention."""

    vector: Tensor  # (N, Q), q_t, which locations are compared with: h_(t-1), or [h_(t-1); E y_(t-1)]
    hidden: Tensor  # (N, H), h_(t-1)
    cell: Tensor  # (N, H), m_(t-1), the cell state of an LSTM; of other cells h_(t-1) again
    word: Tensor  # (N, E), embedding of the previous word, y_(t-1)
    position: int  # t: words so far


class Memory(NamedTuple):
    """What the decoder attends to, one row per caption."""

    annotations: Tensor  # (N, L, D)
    prepared: tuple[Tensor, ...]  # what the mechanism computed from them once; (N, ...) each
    draw_seed: int | None  # seed for hard attention to sample its locations; None: the most likely ones
    evidence: Evidence | None = None  # of words, which no mechanism uses; None: the network has none

    def select(self, rows: Tensor | slice) -> Self:
        """The memory of some of the rows; an index may repeat, as for five captions of an image."""
        return self._replace(
            annotations=self.annotations[rows],
            prepared=tuple(tensor[rows] for tensor in self.prepared),
            evidence=None if self.evidence is None else self.evidence.select(rows),
        )


class AttentionMaps(NamedTuple):
    """Attention weights and gates of a step; None where the mechanism, or the decoder, has no such thing."""

    alpha: Tensor | None = None  # (N, L), never negative, sums to 1 over the locations
    heads: Tensor | None = None  # (N, M, L), the weights of each head; alpha is their mean
    sentinel: Tensor | None = None  # (N,), share of the attention on the visual sentinel, 0 to 1
    chosen: Tensor | None = None  # (N,), the one location used; -1: in training, the expectation instead
    beta: Tensor | None = None  # (N,), gate on the context, 0 to 1; of a vector gate the mean

    def select(self, rows: Tensor | slice | int) -> Self:
        """The maps of some of the rows, or of one row, which then loses its first dimension."""
        return self.__class__(*(None if part is None else part[rows] for part in self))

    @classmethod
    def stack(cls, steps: Sequence[Self], rows: int) -> Self:
        """The maps of successive steps, (N, ...) each with N never rising, as (rows, T, ...).

        Finished captions are padded with 0, ``chosen`` with -1.
        """
        columns = zip(*steps, strict=True)
        return cls(
            *(
                None if parts[0] is None else _stack(parts, rows, fill=-1 if name == "chosen" else 0)
                for name, parts in zip(cls._fields, columns, strict=True)
            )
        )


class Attention(Protocol):
    """What the decoder needs of an attention mechanism."""

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """What is computed once per image, from annotations (N, L, D); every tensor has N rows."""

    def __call__(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        """The context vector, (N, D), and the maps of one step."""


ATTENTION_KINDS: dict[str, Callable[[Sizes], Attention]] = {}

_Built = TypeVar("_Built", bound=Callable[[Sizes], Attention])


def attention_kind(name: str) -> Callable[[_Built], _Built]:
    """Class decorator: registers a mechanism under the ``name`` that ``ModelConfig.attention`` gives it."""

    def register(built: _Built) -> _Built:
        assert name not in ATTENTION_KINDS, name
        ATTENTION_KINDS[name] = built
        return built

    return register


def weighted_sum(alpha: Tensor, values: Tensor) -> Tensor:
    """The expected value under ``alpha``: (N, L) and (N, L, D) to (N, D)."""
    return torch.bmm(alpha.unsqueeze(1).to(values.dtype), values).squeeze(1)


def _stack(parts: Sequence[Tensor], rows: int, *, fill: int) -> Tensor:
    whole = parts[0].new_full((len(parts), rows, *parts[0].shape[1:]), fill)  # (T, rows, ...)
    padded = [torch.cat((part, blank[len(part) :])) for part, blank in zip(parts, whole, strict=True)]
    return torch.stack(padded, dim=1)
