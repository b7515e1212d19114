"""Captions, their words and attention maps, and their JSON records."""

from dataclasses import dataclass
from typing import Any

# Five decimals of a weight are finer than a level of an 8-bit overlay, and half the bytes of all decimals.
ATTENTION_DECIMALS = 5
LOG_PROB_DECIMALS = 4
SUPPORT_DECIMALS = 2
PROBABILITY_DECIMALS = 3  # of confidence and labels

Map = tuple[tuple[float, ...], ...]  # rows x columns of weights, never negative, summing to 1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The part of the upright photo that the annotation grid covers."""

    rows: int
    columns: int
    box: tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the photo

    def as_record(self) -> dict[str, Any]:
        """The grid as plain data, ready for JSON."""
        return {"rows": self.rows, "columns": self.columns, "box": list(self.box)}


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of a caption with its attention maps; None where the network has no such thing."""

    word: str
    log_prob: float  # natural logarithm of p(word | image, previous words), <= 0
    beta: float | None  # gate on the context, in (0, 1): how much the word depends on the image
    attention: Map | None
    support: float | None = None  # evidence of the word in the image: change of its log-odds, in nats
    heads: tuple[Map, ...] | None = None  # of multi-head attention; ``attention`` is their mean
    sentinel: float | None = None  # share of the attention on the visual sentinel, not the image, 0 to 1
    chosen: tuple[int, int] | None = None  # of hard attention: row and column of the one cell used

    def as_record(self, *, attention: bool) -> dict[str, Any]:
        """The word as plain data; ``attention`` includes the weights."""
        record: dict[str, Any] = {
            "word": self.word,
            "log_prob": round(self.log_prob, LOG_PROB_DECIMALS),
            "beta": None if self.beta is None else round(self.beta, LOG_PROB_DECIMALS),
            "support": None if self.support is None else round(self.support, SUPPORT_DECIMALS),
        }
        if self.sentinel is not None:
            record["sentinel"] = round(self.sentinel, LOG_PROB_DECIMALS)
        if self.chosen is not None:
            record["chosen"] = list(self.chosen)
        if attention:
            record["attention"] = None if self.attention is None else _rounded(self.attention)
            if self.heads is not None:
                record["heads"] = [_rounded(head) for head in self.heads]
        return record


def _rounded(weights: Map) -> list[list[float]]:
    return [[round(weight, ATTENTION_DECIMALS) for weight in row] for row in weights]


@dataclass(frozen=True, kw_only=True)
class Label:
    """A thing that the photo shows."""

    name: str
    probability: float  # as the classifier that the labels were learnt from would give it

    def as_record(self) -> dict[str, Any]:
        """The label as plain data, ready for JSON."""
        return {"label": self.name, "probability": round(self.probability, PROBABILITY_DECIMALS)}


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption with its words; ``log_prob`` includes the end token."""

    text: str
    log_prob: float  # natural logarithm of p(caption | image), <= 0
    words: tuple[Word, ...]
    grid: Grid
    is_finished: bool  # False if it was cut off at the maximum length
    confidence: float | None = None  # calibrated probability that it is right; None: not known
    labels: tuple[Label, ...] | None = None  # of the photo, most probable first; None: not known

    def as_record(self, *, attention: bool) -> dict[str, Any]:
        """The caption as plain data; ``attention`` includes the weights of every word."""
        return {
            "caption": self.text,
            "log_prob": round(self.log_prob, LOG_PROB_DECIMALS),
            "confidence": None if self.confidence is None else round(self.confidence, PROBABILITY_DECIMALS),
            "words": [word.as_record(attention=attention) for word in self.words],
            "grid": self.grid.as_record(),
        }
