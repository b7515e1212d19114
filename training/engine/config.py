"""How a captioner is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model import ModelConfig, OptionsError
from training.engine.losses import DOUBLY_STOCHASTIC_TARGETS

LARGEST_SEED = 2**63 - 1


def _option(default: Any, meaning: str) -> Any:
    """A field whose meaning the command line's help shows."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe. Steps are batches."""

    epochs: int = _option(13, "passes over the photos")
    frozen_epochs: int = _option(6, "first epochs, in which the encoder does not learn")
    batch_size: int = _option(32, "photos a step, each with all its captions")
    learning_rate: float = _option(1e-3, "peak, of everything but the encoder")
    encoder_learning_rate: float = _option(1e-4, "peak, of the encoder")
    warmup_steps: int = _option(200, "steps to the peak; then half a cosine down to 0")
    weight_decay: float = _option(0.01, "AdamW's")
    label_smoothing: float = _option(0.1, "share of probability spread over all words")
    doubly_stochastic: float = _option(0.05, "weight of the doubly stochastic term, a mean over locations")
    doubly_stochastic_target: str = _option("1", "what it pulls the weights of a location to: 1 or T/L")
    clip_norm: float = _option(2.0, "longest gradient, L2")
    average_decay: float = _option(0.998, "of the moving average of the weights, which is what is kept")
    self_critical_epochs: int = _option(0, "last epochs, which reward whole captions for their CIDEr")
    self_critical_learning_rate: float = _option(5e-5, "peak in these, of everything but the encoder")
    self_critical_encoder_learning_rate: float = _option(0.0, "peak in these, of the encoder; 0 leaves it")
    samples: int = _option(5, "captions drawn of a photo in these epochs")
    seed: int = _option(0, "of everything random")

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            OptionsError: one sentence naming the option.
        """
        for name in ("epochs", "batch_size", "warmup_steps"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{as_option(name)} is {getattr(self, name)}; it must be at least 1.")
        for name in ("frozen_epochs", "self_critical_epochs"):
            if getattr(self, name) < 0:
                raise OptionsError(f"{as_option(name)} is {getattr(self, name)}; it must not be negative.")
        if self.self_critical_epochs > self.epochs:
            raise OptionsError(
                f"--self-critical-epochs is {self.self_critical_epochs}; --epochs are {self.epochs} in all."
            )
        if self.samples < 2:
            raise OptionsError(f"--samples is {self.samples}; each is judged by the others: take 2 or more.")
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionsError(f"{as_option(name)} is {getattr(self, name)}; it must lie in [0, 1).")
        for name in (
            "learning_rate",
            "encoder_learning_rate",
            "self_critical_learning_rate",
            "self_critical_encoder_learning_rate",
            "weight_decay",
            "doubly_stochastic",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionsError(
                    f"{as_option(name)} is {getattr(self, name)}; it must be finite and not negative."
                )
        if self.doubly_stochastic_target not in DOUBLY_STOCHASTIC_TARGETS:
            raise OptionsError(
                f"--doubly-stochastic-target is {self.doubly_stochastic_target}; "
                f"it must be {' or '.join(DOUBLY_STOCHASTIC_TARGETS)}."
            )
        if not self.clip_norm > 0:
            raise OptionsError(f"--clip-norm is {self.clip_norm}; it must be a number above 0.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise OptionsError(f"The seed is {self.seed}; it must lie in 0 to 2**63 - 1.")


# What differs for a captioner that is trained already and a few hundred new photos.
FINE_TUNING_MIN_COUNT = 2
FINE_TUNING = {"epochs": 12, "frozen_epochs": 4, "learning_rate": 5e-4, "warmup_steps": 20}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run works on and with, beside the network and the recipe."""

    captions: tuple[Path, ...]  # in any of the formats of training/data/caption_files.py
    images: tuple[Path, ...]  # the folder of the photos of each
    output: Path  # the folder it writes
    skip_problems: bool = False  # train on what is left; else nothing begins while the data has problems
    resume: bool = False
    start_from: Path | None = None  # the checkpoint of a trained captioner
    min_count: int = 5  # words rarer than this become unknown
    encoder_weights: str = "published"  # or "none", or a file
    features: Path | None = None  # where the frozen encoder's features are kept; None: nowhere
    precision: str = "fp32"  # or "bf16", or on a GPU "fp16"
    device: str = "cpu"
    accumulate: int = 1  # batches a step is split into over time
    workers: int = 1  # processes that read photos
    save_minutes: float = 3.0  # most work a crash can lose
    validate_every: int = 1  # epochs; the last is always validated
    name: str = "captioner"
    licence: str = "unstated"
    trained_on: str = "unstated"

    def __post_init__(self) -> None:
        """Refuse what no run can be.

        Raises:
            OptionsError: one sentence naming the option.
        """
        for name in ("min_count", "validate_every", "accumulate"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{as_option(name)} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.save_minutes < math.inf:
            raise OptionsError(f"--save-minutes is {self.save_minutes}; it must be finite and not negative.")


def network_defaults(names: Collection[str]) -> dict[str, Any]:
    """Those fields of ``ModelConfig`` with what they are if nobody chooses, as they are read from JSON."""
    record = ModelConfig(vocabulary_size=0).as_record()
    del record["vocabulary_size"]  # has no default
    defaults: dict[str, Any] = json.loads(json.dumps(record))
    return {name: value for name, value in defaults.items() if name in names}


def as_option(name: str) -> str:
    """A field as it is written on the command line."""
    return f"--{name.replace('_', '-')}"
