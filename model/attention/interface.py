"""What the decoder and every kind of attention say to each other.

Before the first word a kind prepares what it needs of the photographs; then every step turns a query into a
context and a look. A kind keeps nothing between calls, so one network can serve several threads.
Dimension key: N captions (rows), L locations, D annotation, Q query, H hidden, E embedding, A attention,
M heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from model.evidence import Evidence


class Sizes(NamedTuple):
    """The sizes a kind is built for."""

    annotation: int  # D
    query: int  # Q, of Query.vector: H or H + E
    hidden: int  # H
    embedding: int  # E
    attention: int  # A
    heads: int  # M
    rows: int  # of the grid; L = rows * columns, row by row
    columns: int
    score_blur: int = 0  # see ScoreBlur


class Query(NamedTuple):
    """What the decoder knows when it is about to look for the next word."""

    vector: Tensor  # (N, Q) what locations are compared with, q_t: h_(t-1), or [h_(t-1); E y_(t-1)]
    hidden: Tensor  # (N, H) h_(t-1)
    cell: (
        Tensor  # (N, H) m_(t-1), the recurrent cell's memory; h_(t-1) again where a cell has none of its own
    )
    word: Tensor  # (N, E) embedding of the previous word, y_(t-1)
    position: int  # t: words written so far


class Memory(NamedTuple):
    """What the decoder can look at, one row a caption."""

    annotations: Tensor  # (N, L, D)
    prepared: tuple[Tensor, ...]  # what the kind made of them, once for all words; (N, ...) each
    mask: Tensor | None  # (N, L), true where a location may be looked at; None: everywhere
    draw_seed: int | None  # of what a kind draws while captioning; None: it draws nothing
    evidence: Evidence | None = None  # for and against words; None: of a decoder that has no use for it

    def select(self, rows: Tensor | slice) -> Memory:
        """The memory of some of the rows; an index may repeat, as for five captions of a photograph."""
        return self._replace(
            annotations=self.annotations[rows],
            prepared=tuple(tensor[rows] for tensor in self.prepared),
            mask=None if self.mask is None else self.mask[rows],
            evidence=None if self.evidence is None else self.evidence.select(rows),
        )


class Look(NamedTuple):
    """What was seen at a step. None stands where a kind of attention, or the decoder, has no such thing."""

    alpha: Tensor | None = None  # (N, L), never negative, sums to 1 over the locations
    heads: Tensor | None = None  # (N, M, L), the weights of each head; alpha is their mean
    sentinel: Tensor | None = None  # (N,), share of attention that stayed off the photograph, 0 to 1
    chosen: Tensor | None = None  # (N,), the one location used; -1: in training, the expectation instead
    beta: Tensor | None = None  # (N,), gate on the context, 0 to 1; of a vector gate the mean

    def select(self, rows: Tensor | slice | int) -> Look:
        """The look of some of the rows, or of one row, which then loses its first dimension."""
        return Look(*(None if seen is None else seen[rows] for seen in self))

    @classmethod
    def stack(cls, looks: Sequence[Self], rows: int) -> Look:
        """Successive looks, (N, ...) each with N never rising, as one of (rows, T, ...).

        What ended captions did not see is 0, and -1 for ``chosen``.
        """
        columns = zip(*looks, strict=True)
        return Look(
            *(
                None if seen[0] is None else _stack(seen, rows, fill=-1 if name == "chosen" else 0)
                for name, seen in zip(cls._fields, columns, strict=True)
            )
        )


class Attended(NamedTuple):
    """What one look at the photographs gave."""

    context: Tensor  # (N, D)
    look: Look


class Attention(Protocol):
    """What the decoder asks of a kind of attention."""

    def prepare(self, annotations: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """What is computed once a photograph, of annotations (N, L, D); every tensor has N rows."""
        ...

    def __call__(self, query: Query, memory: Memory) -> Attended:
        """One look."""
        ...


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Weights over the last dimension; in float32 under mixed precision too, 0 where ``mask`` is false."""
    scores = scores.float()
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


def weighted_sum(alpha: Tensor, values: Tensor) -> Tensor:
    """The expected value under ``alpha``: (N, L) and (N, L, D) to (N, D)."""
    return torch.bmm(alpha.unsqueeze(1).to(values.dtype), values).squeeze(1)


def mean_annotation(annotations: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the locations that may be looked at, (N, L, D) to (N, D)."""
    if mask is None:
        return annotations.mean(dim=1)
    return weighted_sum(even_weights(annotations, mask), annotations)


def even_weights(annotations: Tensor, mask: Tensor | None) -> Tensor:
    """The same weight for every location that may be looked at, (N, L)."""
    return masked_softmax(annotations.new_zeros(annotations.shape[:2]), mask)


def _stack(seen: Sequence[Tensor], rows: int, *, fill: int) -> Tensor:
    whole = seen[0].new_full((len(seen), rows, *seen[0].shape[1:]), fill)  # (T, rows, ...)
    padded = [torch.cat((part, blank[len(part) :])) for part, blank in zip(seen, whole, strict=True)]
    return torch.stack(padded, dim=1)
