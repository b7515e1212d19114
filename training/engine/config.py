"""Configuration of training: the recipe, and the options of a run."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model import ModelConfig, OptionsError
from model.options import check_options, option

MAX_SEED = 2**63 - 1
PRECISIONS = ("fp32", "bf16", "fp16")

# Removed options, each with the value that is now the only behaviour.
REMOVED_OPTIONS = {"doubly_stochastic_target": "1", "self_critical_encoder_learning_rate": 0.0}

# What runs of earlier versions had, by the field of RunOptions.
EARLIER_RUNS = {"end_after_truncation": True, "without_endings": True}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training recipe. A step is one batch."""

    epochs: int = option(13, "passes over the training photos", low=1)
    frozen_epochs: int = option(6, "first epochs, with the encoder frozen", low=0)
    batch_size: int = option(32, "photos a step, each with all its captions", low=1)
    learning_rate: float = option(1e-3, "peak learning rate (decoder)", low=0, below=math.inf)
    encoder_learning_rate: float = option(1e-4, "peak learning rate (encoder)", low=0, below=math.inf)
    warmup_steps: int = option(200, "steps of linear warm-up, followed by cosine decay to 0", low=1)
    weight_decay: float = option(0.01, "weight decay of AdamW", low=0, below=math.inf)
    label_smoothing: float = option(0.1, "label smoothing", low=0, below=1)
    doubly_stochastic: float = option(
        0.05, "weight of the doubly stochastic attention penalty", low=0, below=math.inf
    )
    clip_norm: float = option(2.0, "maximum gradient norm (L2)", above=0)
    average_decay: float = option(0.998, "EMA decay; checkpoints contain the EMA weights", low=0, below=1)
    self_critical_epochs: int = option(
        0, "last epochs, which maximize CIDEr (self-critical training), at most --epochs", low=0
    )
    self_critical_learning_rate: float = option(
        5e-5, "peak learning rate of these, with the encoder frozen", low=0, below=math.inf
    )
    samples: int = option(5, "captions sampled per image in these", low=2)
    seed: int = option(0, "random seed", low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        """Raise OptionsError, naming the option, for a value outside its limits."""
        check_options(self, flags=True)
        if self.self_critical_epochs > self.epochs:
            raise OptionsError(
                f"--self-critical-epochs is {self.self_critical_epochs}; it must be at most --epochs, "
                f"{self.epochs}."
            )


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
    end_after_truncation: bool = False  # as in runs of earlier versions, see ``encode_captions``
    without_endings: bool = False  # as in runs of earlier versions, see ``learn_endings``
    skip_problems: bool = option(
        False, "train without the photos that python -m training.check reports, instead of stopping"
    )
    min_count: int = option(
        5, f"words that occur less often become unknown, {FINE_TUNING_MIN_COUNT} with --start-from", low=1
    )
    encoder_weights: str = option(
        "published",
        "pretrained encoder weights: a file, 'published' to download those of torchvision, or 'none'",
        metavar="FILE",
    )
    start_from: Path | None = option(
        None,
        "fine-tune this checkpoint, such as checkpoints/default; new words are added to its vocabulary",
        kind=Path,
        metavar="DIR",
    )
    resume: bool = option(False, "continue the run in --output; repeat its other options")
    save_minutes: float = option(
        3.0, "minutes between saves, which is the most that a crash can lose", low=0, below=math.inf
    )
    validate_every: int = option(1, "validate every N epochs, and after the last", low=1)
    name: str = option("captioner", "name stored in the checkpoint")
    licence: str = option("unstated", "terms of the weights, stored in the checkpoint", metavar="TEXT")
    trained_on: str = option("unstated", "description of the data, stored in the checkpoint", metavar="TEXT")
    precision: str = option(
        "fp32", "bf16 is faster on recent server CPUs and GPUs, fp16 on older GPUs", choices=PRECISIONS
    )
    device: str = option("cuda" if torch.cuda.is_available() else "cpu", "torch device")
    accumulate: int = option(
        1, "accumulate the gradients of N smaller batches in a step, to need less memory", low=1
    )
    workers: int = option(1, "data loader worker processes, 0 to load in the training process", low=0)

    def __post_init__(self) -> None:
        """Raise OptionsError, naming the option, for a value outside its limits."""
        check_options(self, flags=True)


def network_defaults(names: Collection[str]) -> dict[str, Any]:
    """Default values of the fields ``names`` of ``ModelConfig``, as they are read back from JSON."""
    record = ModelConfig(vocabulary_size=0).as_record()
    del record["vocabulary_size"]  # has no default
    defaults: dict[str, Any] = json.loads(json.dumps(record))
    return {name: value for name, value in defaults.items() if name in names}
