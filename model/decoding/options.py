"""The options of decoding: one table for Python, the command line and HTTP.

The metadata of each field holds its ``type``, its ``low`` and ``high`` limits (inclusive, None for a flag)
and its ``help``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self

from model.config import MAX_TOKENS
from model.errors import OptionsError

MAX_BEAM_SIZE = 10
MAX_SEED = 2**32 - 1


class ArgumentParser(Protocol):
    """What ``add_arguments`` needs of an argparse parser or argument group."""

    def add_argument(self, flag: str, /, **settings: Any) -> Any:
        """Add one option."""


def _option(kind: type, default: Any, low: float | None, high: float | None, meaning: str) -> Any:
    metadata = {"type": kind, "low": low, "high": high, "help": meaning}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How captions are decoded. Defaults were chosen on the validation set."""

    beam_size: int = _option(int, 3, 1, MAX_BEAM_SIZE, "hypotheses in the beam; 1 is greedy decoding")
    num_captions: int = _option(int, 1, 1, MAX_BEAM_SIZE, "captions per photo, at most the beam size")
    max_length: int | None = _option(
        int, None, 1, MAX_TOKENS, "maximum length of a caption in tokens (default: the model's own)"
    )
    length_penalty: float = _option(float, 0.7, 0, 2, "captions rank by log-probability / length ** X")
    phrase_weight: float = _option(
        float, 1.25, 0, 100, "weight of the phrase score in ranking; no effect without a phrase head"
    )
    allow_repeats: bool = _option(bool, False, None, None, "allow a caption to repeat a pair of words")
    draw_seed: int | None = _option(
        int, None, 0, MAX_SEED, "seed for sampling hard attention (default: its most likely location)"
    )

    def __post_init__(self) -> None:
        """Check every value against its type and limits.

        Raises:
            OptionsError: a value has another type or is outside its limits.
        """
        for option in fields(self):
            value, kind = getattr(self, option.name), option.metadata["type"]
            low, high = option.metadata["low"], option.metadata["high"]
            if value is None and option.default is None:
                continue
            if kind is bool:
                valid, right = isinstance(value, bool), "true or false"
            else:
                is_number = (
                    isinstance(value, int if kind is int else (int, float)) and type(value) is not bool
                )
                valid = is_number and low <= value <= high
                right = f"a {'whole ' if kind is int else ''}number from {low} to {high}"
            if not valid:
                raise OptionsError(f"{option.name} is {value!r}; it must be {right}.")
        if self.num_captions > self.beam_size:
            raise OptionsError(
                f"num_captions is {self.num_captions}; it must be a whole number from 1 to {self.beam_size} "
                "(the beam size)."
            )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The options among ``values``, such as parsed arguments; None stands for the default.

        Raises:
            OptionsError: a value has another type or is outside its limits.
        """
        names = [option.name for option in fields(cls)]
        return cls(**{name: values[name] for name in names if values.get(name) is not None})

    @classmethod
    def add_arguments(cls, parser: ArgumentParser, *names: str) -> None:
        """Add command-line options such as ``--beam-size``; all of them if no ``names`` are given.

        An option that is not given is parsed as None, as ``from_values`` expects.
        """
        for option in fields(cls):
            if names and option.name not in names:
                continue
            flag, meaning = f"--{option.name.replace('_', '-')}", option.metadata["help"]
            kind, low, high = (option.metadata[name] for name in ("type", "low", "high"))
            if kind is bool:
                parser.add_argument(flag, action="store_true", default=None, help=meaning)
                continue
            default = "" if option.default is None else f", default {option.default}"
            parser.add_argument(
                flag,
                type=kind,
                metavar="N" if kind is int else "X",
                help=f"{meaning}, {low} to {high}{default}",
            )
