"""The steps of training: forward, backward, update, and everything a stopped run needs to go on."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from model import CaptioningError
from model.network import CaptionNetwork, Reading
from training.config import TrainConfig
from training.data import Batch
from training.loss import (
    BASELINE_MEMORY,
    doubly_stochastic_penalty,
    reinforce,
    smoothed_cross_entropy,
)

Tensors = tuple[Tensor, ...] | list[Tensor]


class TrainingError(CaptioningError):
    """A run that cannot go on."""


class DivergedError(TrainingError):
    """A run whose numbers left every bound: with these options it always will."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until a step is done and counted: nothing can go on from half a step."""
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _told_if_diverged(step: int) -> Iterator[None]:
    """One sentence where torch raises: it draws nothing from NaN, and takes no step beyond the floats."""
    try:
        yield
    except RuntimeError as error:
        if "overflow" not in str(error) and "probability tensor" not in str(error):
            raise
        raise DivergedError(
            f"The numbers of step {step} left every bound; try a lower learning rate."
        ) from None


class StepLoss(NamedTuple):
    """What a step found before it changed anything: means over the batch."""

    cross_entropy: Tensor  # nats a word, label smoothing included
    doubly_stochastic: Tensor  # see doubly_stochastic_penalty
    reinforcement: Tensor  # of hard attention's draws; 0 for every other kind


class Trainer:
    """A network with its optimizer, learning rates and moving average."""

    def __init__(
        self, network: CaptionNetwork, config: TrainConfig, *, steps_per_epoch: int, bfloat16: bool
    ) -> None:
        self.network = network
        self.config = config
        self.step = 0  # batches so far
        self._baseline = 0.0  # nats a word, of hard attention's rewards
        self._device = next(network.parameters()).device
        self._bfloat16 = bfloat16
        self._frozen_steps = config.frozen_epochs * steps_per_epoch
        self._all_steps = config.epochs * steps_per_epoch
        encoder = list(network.encoder.parameters())
        others = [
            parameter for name, parameter in network.named_parameters() if not name.startswith("encoder.")
        ]
        self._optimizer = torch.optim.AdamW(
            [{"params": others, "lr": 0.0}, {"params": encoder, "lr": 0.0}], weight_decay=config.weight_decay
        )
        self._average = AveragedModel(network, multi_avg_fn=self._blend)

    @property
    def averaged(self) -> CaptionNetwork:
        """The moving average of the network: what is validated and kept."""
        network = self._average.module
        assert isinstance(network, CaptionNetwork)
        return network

    @property
    def is_encoder_frozen(self) -> bool:
        """Whether the encoder does not learn yet."""
        return self.step < self._frozen_steps

    def train_on(self, batch: Batch) -> tuple[float, float]:
        """One step; cross-entropy (nats a word) and doubly stochastic penalty of the batch before it.

        Raises:
            DivergedError: the loss or the update is not finite.
        """
        # Dropout draws from seed and step alone, so it does not matter what a stopped run had drawn.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) % 2**63)
        self.network.train()
        self.network.encoder.train(not self.is_encoder_frozen)
        self._set_learning_rates()
        with _told_if_diverged(self.step):
            loss = self._loss(batch)
        total = (
            loss.cross_entropy + self.config.doubly_stochastic * loss.doubly_stochastic + loss.reinforcement
        )
        if not torch.isfinite(total):
            raise DivergedError(
                f"The loss became {total.item()} at step {self.step}; try a lower learning rate."
            )
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        with _told_if_diverged(self.step):
            self._optimizer.step()
        self._average.update_parameters(self.network)
        self.step += 1
        return loss.cross_entropy.item(), loss.doubly_stochastic.item()

    def _loss(self, batch: Batch) -> StepLoss:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            memory = self.network.remember_features(self._features(batch.inputs.to(self._device)))
            memory = memory.select(batch.owners.to(self._device))  # (N, L, D): a photograph once a caption
            reading = self.network.read(memory, batch.words.to(self._device), batch.lengths)
        targets = batch.targets.to(self._device)
        return StepLoss(
            smoothed_cross_entropy(reading.logits, targets, label_smoothing=self.config.label_smoothing),
            doubly_stochastic_penalty(reading.looks.alpha, target=self.config.doubly_stochastic_target),
            self._reinforcement(reading, targets, batch.lengths),
        )

    def _reinforcement(self, reading: Reading, targets: Tensor, lengths: Tensor) -> Tensor:
        """What locations that were drawn teach; the baseline moves on after it was used."""
        if reading.looks.chosen is None:
            return torch.zeros(())
        found = reinforce(reading.logits, targets, lengths, reading.looks, self._baseline)
        self._baseline += (1 - BASELINE_MEMORY) * (found.reward - self._baseline)
        return found.loss

    def _features(self, inputs: Tensor) -> Tensor:
        """Features (B, L, F) of photographs (B, 3, S, S), or of features themselves."""
        if inputs.dim() == 3:
            return inputs
        with torch.no_grad() if self.is_encoder_frozen else contextlib.nullcontext():
            features: Tensor = self.network.encoder(inputs)
        return features

    def _set_learning_rates(self) -> None:
        rates = (self.config.learning_rate, self.config.encoder_learning_rate)
        for group, peak, start in zip(
            self._optimizer.param_groups, rates, (0, self._frozen_steps), strict=True
        ):
            group["lr"] = peak * self._schedule(self.step - start, self._all_steps - start)

    def _schedule(self, step: int, steps: int) -> float:
        """Share of the peak learning rate: a linear rise, then half a cosine down to 0."""
        if step < 0:
            return 0.0
        # A run of few steps would be over before it had warmed up.
        rise = min(1.0, (step + 1) / min(self.config.warmup_steps, max(1, steps // 5)))
        return rise * (1 + math.cos(math.pi * step / steps)) / 2

    def _blend(self, averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        """Moving average that forgets its beginnings quickly, so that short runs are not held back."""
        count = int(updates)
        decay = min(self.config.average_decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    def save(self, path: Path, progress: dict[str, Any]) -> None:
        """Keep everything needed to go on, with ``progress``; a crash leaves the file before or this one."""
        state = {
            "network": self.network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "baseline": self._baseline,
            "progress": progress,
        }
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def restore(self, path: Path) -> dict[str, Any]:
        """Go on from ``save``; its ``progress``.

        Raises:
            TrainingError: there is nothing to go on from, or it is of another network.
        """
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
        except FileNotFoundError:
            raise TrainingError(f"There is no run to go on with: {path} does not exist.") from None
        except Exception as error:  # bytes that are no state can raise nearly anything
            raise TrainingError(
                f"{path} is damaged, or no state of this program ({type(error).__name__})."
            ) from None
        try:
            self.network.load_state_dict(state["network"])
            self._average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
            self._baseline = float(state["baseline"])
            return dict(state["progress"])
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise TrainingError(
                f"{path} is not the state of this network ({type(error).__name__}); "
                "--resume needs the data and the options the run was started with."
            ) from None
