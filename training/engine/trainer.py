"""The steps of training: forward, backward, update, and everything a stopped run needs to go on."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from model.files import replacing
from model.network import CaptionNetwork
from training.data.batches import LONGEST_CAPTION, Batch
from training.engine import distributed
from training.engine.cider_reward import CiderReward
from training.engine.config import TrainConfig
from training.engine.losses import BASELINE_MEMORY
from training.engine.objective import Costs, Objective, Phase, Share, encoder_learns
from training.errors import DivergedError, TrainingError

Tensors = tuple[Tensor, ...] | list[Tensor]


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


class Report(NamedTuple):
    """What a step found before it changed anything."""

    cross_entropy: float  # nats a word, label smoothing included; 0 in the self-critical phase
    doubly_stochastic: float  # see doubly_stochastic_penalty
    reward: float  # mean CIDEr-D of the captions drawn in the self-critical phase, 0 to 10; else 0


class Trainer:
    """A network with its optimizer, learning rates and moving average."""

    def __init__(
        self,
        network: CaptionNetwork,
        config: TrainConfig,
        *,
        steps_per_epoch: int,
        precision: str = "fp32",
        reward: CiderReward | None = None,
        longest: int = LONGEST_CAPTION,
    ) -> None:
        """A trainer at its first step.

        Args:
            network: to train, on its device.
            config: the recipe.
            steps_per_epoch: how many calls of ``train_on`` make an epoch.
            precision: fp32, bf16 or fp16.
            reward: of captions drawn in self-critical epochs.
            longest: tokens of such a caption, the end not counted.
        """
        self.network = network
        self.config = config
        self.step = 0  # batches so far
        self._baseline = 0.0  # nats a word, of hard attention's rewards
        self._device = next(network.parameters()).device
        self._autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "fp16")
        self._steps_per_epoch = steps_per_epoch
        self._frozen_steps = config.frozen_epochs * steps_per_epoch
        self._all_steps = config.epochs * steps_per_epoch
        self._reward_start = (config.epochs - config.self_critical_epochs) * steps_per_epoch
        encoder = list(network.encoder.parameters())
        others = [
            parameter for name, parameter in network.named_parameters() if not name.startswith("encoder.")
        ]
        self._optimizer = torch.optim.AdamW(
            [{"params": others, "lr": 0.0}, {"params": encoder, "lr": 0.0}], weight_decay=config.weight_decay
        )
        self._average = AveragedModel(network, multi_avg_fn=self._blend)
        self._objective = Objective(network, config, reward, longest)
        self._engine: nn.Module = self._objective

    @property
    def averaged(self) -> CaptionNetwork:
        """The moving average of the network: what is validated and kept."""
        network = self._average.module
        assert isinstance(network, CaptionNetwork)
        return network

    @property
    def phase(self) -> Phase:
        """What the next step teaches."""
        return self._phase_at(self.step)

    def _phase_at(self, step: int) -> Phase:
        if self.config.self_critical_epochs and step >= self._reward_start:
            return Phase.SELF_CRITICAL
        return Phase.FROZEN if step < self._frozen_steps else Phase.LEARNING

    def autocast(self) -> torch.autocast:
        """What forward passes of training run under."""
        return torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None)

    def begin_epoch(self, epoch: int) -> Phase:
        """Make ready for an epoch, counted from 0, or for what a stopped run left of it; what it teaches."""
        phase = self._phase_at(epoch * self._steps_per_epoch)
        self.network.encoder.requires_grad_(encoder_learns(self.config, phase))
        self._engine = distributed.spread(self._objective)
        if phase is Phase.SELF_CRITICAL and self.step == self._reward_start:
            # From the average, which is what was validated.
            self.network.load_state_dict(self.averaged.state_dict())
            self._average.n_averaged.zero_()
            self._optimizer.state.clear()
        return phase

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Of the encoder, and of everything else, in the step before."""
        others, encoder = (group["lr"] for group in self._optimizer.param_groups)
        return encoder, others

    def train_on(self, parts: Sequence[Batch]) -> Report:
        """One step.

        Args:
            parts: the batches of this process whose gradients are added up, with those of other processes.

        Raises:
            DivergedError: the loss or the update is not finite.
        """
        # Dropout draws from seed and step alone, so it does not matter what a stopped run had drawn.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step + distributed.rank() * 7_919) % 2**63)
        self._set_learning_rates()
        self._optimizer.zero_grad(set_to_none=True)
        with _told_if_diverged(self.step):
            costs = self._add_gradients(parts)
            self._scaler.unscale_(self._optimizer)
            length = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
            if not (self._scaler.is_enabled() or torch.isfinite(length)):  # the scaler leaves such steps out
                raise DivergedError(
                    f"The gradient became {float(length)} at step {self.step}; try a lower learning rate."
                )
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._average.update_parameters(self.network)
        self.step += 1
        if costs.likelihood:  # hard attention's baseline moves on after it was used
            self._baseline += (1 - BASELINE_MEMORY) * (float(costs.likelihood) - self._baseline)
        return Report(float(costs.cross_entropy), float(costs.doubly_stochastic), float(costs.reward))

    def _add_gradients(self, parts: Sequence[Batch]) -> Costs:
        """Forward and backward of every part; the costs of the whole step, over all processes."""
        sums = torch.zeros(len(Costs._fields))
        for place, (batch, share) in enumerate(zip(parts, self._shares(parts), strict=True), start=1):
            is_last = place == len(parts)
            with distributed.accumulating(self._engine, is_last):
                with self.autocast():
                    costs: Costs = self._engine(batch.to(self._device), share, self.phase, self._baseline)
                sums += torch.stack([number.detach().float().cpu() for number in costs])
                if is_last:  # before an update: what is not finite would spoil the weights
                    sums = distributed.sum_of(sums)
                    self._refuse_to_diverge(sums)
                # Processes average their gradients; the shares are made for a sum.
                torch.autograd.backward(self._scaler.scale(costs.total * distributed.processes()))
        return Costs(*sums)

    def _shares(self, parts: Sequence[Batch]) -> list[Share]:
        """What share each part has of all words, captions and photos of the step."""
        counts = torch.tensor(
            [[len(part.targets), len(part.lengths), len(part.inputs)] for part in parts], dtype=torch.float64
        )
        totals = distributed.sum_of(counts.sum(dim=0))
        return [Share(*row) for row in (counts / totals).tolist()]

    def _refuse_to_diverge(self, sums: Tensor) -> None:
        if not torch.isfinite(sums).all():
            raise DivergedError(
                f"The loss became {float(sums[0])} at step {self.step}; try a lower learning rate."
            )

    def _set_learning_rates(self) -> None:
        in_phase = self.step - self._reward_start
        if self.phase is Phase.SELF_CRITICAL:
            share = self._schedule(in_phase, self._all_steps - self._reward_start)
            peaks = (
                self.config.self_critical_learning_rate,
                self.config.self_critical_encoder_learning_rate,
            )
            rates = [peak * share for peak in peaks]
        else:
            starts = (0, self._frozen_steps)
            peaks = (self.config.learning_rate, self.config.encoder_learning_rate)
            rates = [
                peak * self._schedule(self.step - start, self._reward_start - start)
                for peak, start in zip(peaks, starts, strict=True)
            ]
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

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
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "baseline": self._baseline,
            "progress": progress,
        }
        with replacing(path) as file:
            torch.save(state, file)

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
            self._check_moments()
            self._scaler.load_state_dict(state["scaler"])
            for group in self._optimizer.param_groups:
                group["weight_decay"] = self.config.weight_decay  # which may be another from here on
            self.step = int(state["step"])
            self._baseline = float(state["baseline"])
            return dict(state["progress"])
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise TrainingError(
                f"{path} is not the state of this network ({type(error).__name__}); "
                "--resume needs the data, the options and the program the run was started with."
            ) from None

    def _check_moments(self) -> None:
        """Refuse those of parameters in another order, which the optimizer itself would take."""
        for parameter, moments in self._optimizer.state.items():
            if moments["exp_avg"].shape != parameter.shape:
                raise ValueError("moments of other parameters")
