"""Configuration of training: the recipe, and the options of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model import ModelConfig, OptionsError

MAX_SEED = 2**63 - 1

# Removed options, each with the value that is now the only behaviour.
REMOVED_OPTIONS = {"doubly_stochastic_target": "1", "self_critical_encoder_learning_rate": 0.0}


def _option(default: Any, help_text: str, **metadata: Any) -> Any:
    """A field that is an option of the command line; ``metadata`` may give its type or its choices."""
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training recipe. A step is one batch."""

    epochs: int = _option(13, "passes over the training photos")
    frozen_epochs: int = _option(6, "first epochs, with the encoder frozen")
    batch_size: int = _option(32, "photos a step, each with all its captions")
    learning_rate: float = _option(1e-3, "peak learning rate (decoder)")
    encoder_learning_rate: float = _option(1e-4, "peak learning rate (encoder)")
    warmup_steps: int = _option(200, "steps of linear warm-up, followed by cosine decay to 0")
    weight_decay: float = _option(0.01, "weight decay of AdamW")
    label_smoothing: float = _option(0.1, "label smoothing")
    doubly_stochastic: float = _option(0.05, "weight of the doubly stochastic attention penalty")
    clip_norm: float = _option(2.0, "maximum gradient norm (L2)")
    average_decay: float = _option(0.998, "EMA decay; checkpoints contain the EMA weights")
    self_critical_epochs: int = _option(0, "last epochs, which maximize CIDEr (self-critical training)")
    self_critical_learning_rate: float = _option(5e-5, "peak learning rate of these, with the encoder frozen")
    samples: int = _option(5, "captions sampled per image in these, at least 2")
    seed: int = _option(0, "random seed")

    def __post_init__(self) -> None:
        """Refuse values that are out of range or contradict each other.

        Raises:
            OptionsError: one sentence naming the option.
        """
        for name in ("epochs", "batch_size", "warmup_steps"):
            _check_at_least(self, name, 1)
        _check_at_least(self, "samples", 2)
        for name in ("frozen_epochs", "self_critical_epochs"):
            _check_at_least(self, name, 0)
        if self.self_critical_epochs > self.epochs:
            raise OptionsError(
                f"--self-critical-epochs is {self.self_critical_epochs}; it must be at most --epochs, "
                f"{self.epochs}."
            )
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionsError(f"{as_option(name)} is {getattr(self, name)}; it must be in [0, 1).")
        for name in (
            "learning_rate",
            "encoder_learning_rate",
            "self_critical_learning_rate",
            "weight_decay",
            "doubly_stochastic",
        ):
            _check_finite(self, name)
        if not self.clip_norm > 0:
            raise OptionsError(f"--clip-norm is {self.clip_norm}; it must be a number above 0.")
        if not 0 <= self.seed <= MAX_SEED:
            raise OptionsError(f"The seed is {self.seed}; it must be from 0 to 2**63 - 1.")


# Defaults for fine-tuning a trained captioner on a few hundred photos, where they differ.
FINE_TUNING_MIN_COUNT = 2
FINE_TUNING = {"epochs": 12, "frozen_epochs": 4, "learning_rate": 5e-4, "warmup_steps": 20}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Everything a run needs to know besides the network and the recipe."""

    captions: tuple[Path, ...]  # files in any format of training/data/caption_files.py
    images: tuple[Path, ...]  # for each, the folder of its photos
    output: Path  # folder to write
    features: Path | None = None  # cache of the frozen encoder's features; None: no cache
    skip_problems: bool = _option(
        False, "train without the photos that python -m training.check reports, instead of stopping"
    )
    min_count: int = _option(
        5, f"words that occur less often become unknown ({FINE_TUNING_MIN_COUNT} with --start-from)"
    )
    encoder_weights: str = _option(
        "published",
        "pretrained encoder weights: a file, 'published' to download those of torchvision, or 'none'",
    )
    start_from: Path | None = _option(
        None,
        "fine-tune this checkpoint, such as checkpoints/default; new words are added to its vocabulary",
        type=Path,
    )
    resume: bool = _option(False, "continue the run in --output; repeat its other options")
    save_minutes: float = _option(3.0, "minutes between saves, which is the most that a crash can lose")
    validate_every: int = _option(1, "epochs between validations; the last epoch is always validated")
    name: str = _option("captioner", "name stored in the checkpoint")
    licence: str = _option("unstated", "terms of the weights, stored in the checkpoint")
    trained_on: str = _option("unstated", "description of the data, stored in the checkpoint")
    precision: str = _option(
        "fp32",
        "bf16 is faster on recent server CPUs and GPUs, fp16 on older GPUs",
        choices=("fp32", "bf16", "fp16"),
    )
    device: str = _option("cuda" if torch.cuda.is_available() else "cpu", "torch device")
    accumulate: int = _option(1, "accumulate the gradients of so many smaller batches, to need less memory")
    workers: int = _option(1, "data loader worker processes; 0 loads in the training process")

    def __post_init__(self) -> None:
        """Refuse values that are out of range.

        Raises:
            OptionsError: one sentence naming the option.
        """
        for name in ("min_count", "validate_every", "accumulate"):
            _check_at_least(self, name, 1)
        _check_at_least(self, "workers", 0)
        _check_finite(self, "save_minutes")


def network_defaults(names: Collection[str]) -> dict[str, Any]:
    """Default values of the fields ``names`` of ``ModelConfig``, as they are read back from JSON."""
    record = ModelConfig(vocabulary_size=0).as_record()
    del record["vocabulary_size"]  # has no default
    defaults: dict[str, Any] = json.loads(json.dumps(record))
    return {name: value for name, value in defaults.items() if name in names}


def as_option(name: str) -> str:
    """A field as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _check_at_least(config: TrainConfig | RunOptions, name: str, minimum: int) -> None:
    value = getattr(config, name)
    if value < minimum:
        raise OptionsError(f"{as_option(name)} is {value}; it must be at least {minimum}.")


def _check_finite(config: TrainConfig | RunOptions, name: str) -> None:
    value = getattr(config, name)
    if not 0 <= value < math.inf:
        raise OptionsError(f"{as_option(name)} is {value}; it must be finite and at least 0.")
