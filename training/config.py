"""How a captioner is trained."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import torch

from training.data import DataError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe; the defaults are those of the shipped model. Steps are batches."""

    epochs: int = 16
    frozen_epochs: int = 9  # first epochs, in which the encoder does not learn
    batch_size: int = 32  # photographs, each with all its captions
    learning_rate: float = 1e-3  # peak, of everything but the encoder
    encoder_learning_rate: float = 1e-4  # peak
    warmup_steps: int = 200  # until a learning rate reaches its peak; it then falls by half a cosine to 0
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    doubly_stochastic: float = 0.5  # weight of training.loss.doubly_stochastic_penalty
    clip_norm: float = 2.0  # longest gradient, L2
    average_decay: float = 0.998  # of the moving average of the weights that is validated and kept
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse contradictions.

        Raises:
            DataError: one sentence naming the option.
        """
        for name in ("epochs", "batch_size", "warmup_steps"):
            if getattr(self, name) < 1:
                raise DataError(f"{_option(name)} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.frozen_epochs <= self.epochs:
            raise DataError(
                f"--frozen-epochs is {self.frozen_epochs}; "
                f"it must lie between 0 and --epochs ({self.epochs})."
            )
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f"{_option(name)} is {getattr(self, name)}; it must lie in [0, 1).")
        for name in ("learning_rate", "encoder_learning_rate", "weight_decay", "doubly_stochastic"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"{_option(name)} is {getattr(self, name)}; it must not be negative.")
        if not self.clip_norm > 0:
            raise DataError(f"--clip-norm is {self.clip_norm}; it must be above 0.")


def _option(name: str) -> str:
    """A field as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def usable_device(name: str) -> str:
    """``name``, if it is a torch device of this machine; for argparse.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # the latter from a torch built without that kind of device
        raise argparse.ArgumentTypeError(f"there is no device {name!r} here") from None
    return name
