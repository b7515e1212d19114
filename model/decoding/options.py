"""The options of decoding: one table for Python, the command line and HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from model.config import MAX_TOKENS
from model.errors import OptionsError
from model.options import ArgumentParser, add_arguments, check_options, given, option

MAX_BEAM_SIZE = 10
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How captions are decoded. Defaults were chosen on the validation set."""

    beam_size: int = option(3, "hypotheses in the beam, 1 for greedy decoding", low=1, high=MAX_BEAM_SIZE)
    num_captions: int = option(1, "captions per photo, at most the beam size", low=1, high=MAX_BEAM_SIZE)
    max_length: int | None = option(
        None, "maximum tokens of a caption, by default the model's own", kind=int, low=1, high=MAX_TOKENS
    )
    length_penalty: float = option(0.7, "captions rank by log-probability / length ** X", low=0, high=2)
    phrase_weight: float = option(
        1.25, "weight of the phrase score in ranking, no effect without a phrase head", low=0, high=100
    )
    allow_repeats: bool = option(False, "allow a caption to repeat a pair of words")
    draw_seed: int | None = option(
        None, "seed for sampling hard attention, not sampled by default", kind=int, low=0, high=MAX_SEED
    )

    def __post_init__(self) -> None:
        """Raises OptionsError where a value has another type or is outside its limits."""
        check_options(self)
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
        return cls(**given(cls, values))

    @classmethod
    def add_arguments(cls, parser: ArgumentParser, *names: str) -> None:
        """Add command-line options such as ``--beam-size``; all of them if no ``names`` are given."""
        add_arguments(parser, cls, names)
