"""The trainer: optimization steps, learning rate schedule, EMA, and saving and restoring all of it."""

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
from training.data.batches import MAX_CAPTION_WORDS, Batch
from training.engine import distributed
from training.engine.cider_reward import CiderReward
from training.engine.config import TrainConfig
from training.engine.losses import BASELINE_DECAY
from training.engine.objective import LossTerms, Objective, Phase, StepShare
from training.errors import DivergedError, TrainingError

Tensors = tuple[Tensor, ...] | list[Tensor]


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C until the context ends: a run cannot be resumed from half a step."""
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


def _not_finite(name: str, step: int) -> DivergedError:
    return DivergedError(f"The {name} is not finite at step {step}; try a lower learning rate.")


class StepMetrics(NamedTuple):
    """Metrics of a step, from before its update."""

    cross_entropy: float  # nats a word, with label smoothing; 0 in the self-critical phase
    doubly_stochastic: float  # see doubly_stochastic_penalty
    reward: float  # mean CIDEr-D of the captions sampled in the self-critical phase, 0 to 10; else 0


class Trainer:
    """A network with its optimizer, learning rate schedule and EMA."""

    def __init__(
        self,
        network: CaptionNetwork,
        config: TrainConfig,
        *,
        steps_per_epoch: int,
        precision: str = "fp32",
        reward: CiderReward | None = None,
        max_length: int = MAX_CAPTION_WORDS,
    ) -> None:
        """Create a trainer at its first step.

        Args:
            network: to train, on its device.
            config: the recipe.
            steps_per_epoch: calls of ``train_step`` in an epoch.
            precision: fp32, bf16 or fp16.
            reward: of captions sampled in self-critical epochs.
            max_length: tokens of such a caption, without the end token.
        """
        self.network = network
        self.config = config
        self.step = 0  # steps done
        self._baseline = 0.0  # nats a word; of the rewards of hard attention
        self._device = next(network.parameters()).device
        self._autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "fp16")
        self._steps_per_epoch = steps_per_epoch
        self._frozen_steps = config.frozen_epochs * steps_per_epoch
        self._total_steps = config.epochs * steps_per_epoch
        self._self_critical_start = (config.epochs - config.self_critical_epochs) * steps_per_epoch
        if network.evidence:
            network.evidence.requires_grad_(False)  # captions do not train it, see WordDetector.evidence
        decoder = [value for name, value in network.named_parameters() if not name.startswith("encoder.")]
        groups: list[dict[str, Any]] = [{"params": decoder}, {"params": network.encoder.parameters()}]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=config.weight_decay)
        self._ema = AveragedModel(network, multi_avg_fn=self._update_ema)
        self._objective = Objective(network, config, reward, max_length)
        self._ddp: nn.Module = self._objective

    @property
    def ema_network(self) -> CaptionNetwork:
        """The network with EMA weights, which is what is validated and saved as a checkpoint."""
        network = self._ema.module
        assert isinstance(network, CaptionNetwork)
        return network

    @property
    def phase(self) -> Phase:
        """Phase of the next step."""
        return self._phase_at(self.step)

    def _phase_at(self, step: int) -> Phase:
        if self.config.self_critical_epochs and step >= self._self_critical_start:
            return Phase.SELF_CRITICAL
        return Phase.FROZEN if step < self._frozen_steps else Phase.LEARNING

    def autocast(self) -> torch.autocast:
        """Context of the forward passes of training."""
        return torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None)

    def begin_epoch(self, epoch: int) -> Phase:
        """Prepare for an epoch, counted from 0, or for the rest of one; return its phase."""
        phase = self._phase_at(epoch * self._steps_per_epoch)
        self.network.encoder.requires_grad_(phase is Phase.LEARNING)
        self._ddp = distributed.wrap_ddp(self._objective)
        if phase is Phase.SELF_CRITICAL and self.step == self._self_critical_start:
            # From the EMA weights, which were validated.
            self.network.load_state_dict(self.ema_network.state_dict())
            self._ema.n_averaged.zero_()
            self._optimizer.state.clear()
        return phase

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Learning rates of the encoder and of the decoder in the last step."""
        decoder, encoder = (group["lr"] for group in self._optimizer.param_groups)
        return encoder, decoder

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        """Take one optimization step.

        Args:
            batches: of this process; their gradients are accumulated, and summed over all processes.

        Raises:
            DivergedError: the loss or the update is not finite.
        """
        # Random numbers depend on seed and step alone, so that a resumed run draws the same ones.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step + distributed.rank() * 7_919) % 2**63)
        self._set_learning_rates()
        self._optimizer.zero_grad(set_to_none=True)
        try:
            terms = self._add_gradients(batches)
            self._scaler.unscale_(self._optimizer)
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
            if not (self._scaler.is_enabled() or torch.isfinite(norm)):  # the scaler skips such steps
                raise _not_finite("gradient", self.step)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        except RuntimeError as error:  # torch refuses to sample from NaN, and to step beyond the floats
            if "overflow" not in str(error) and "probability tensor" not in str(error):
                raise
            raise _not_finite("loss", self.step) from None
        self._ema.update_parameters(self.network)
        self.step += 1
        if terms.likelihood:  # the baseline of hard attention is updated after its use
            self._baseline += (1 - BASELINE_DECAY) * (float(terms.likelihood) - self._baseline)
        return StepMetrics(float(terms.cross_entropy), float(terms.doubly_stochastic), float(terms.reward))

    def _add_gradients(self, batches: Sequence[Batch]) -> LossTerms:
        """Forward and backward pass of every batch; returns the terms of the step over all processes."""
        sums = torch.zeros(len(LossTerms._fields))
        for number, (batch, share) in enumerate(zip(batches, self._shares(batches), strict=True), start=1):
            is_last = number == len(batches)
            with distributed.accumulate_gradients(self._ddp, synchronize=is_last):
                with self.autocast():
                    terms: LossTerms = self._ddp(batch.to(self._device), share, self.phase, self._baseline)
                sums += torch.stack([term.detach().float().cpu() for term in terms])
                if is_last:  # before the update, which would spoil the weights
                    sums = distributed.all_reduce(sums)
                    if not torch.isfinite(sums).all():
                        raise _not_finite("loss", self.step)
                # DDP averages the gradients of processes; the shares are made for a sum.
                torch.autograd.backward(self._scaler.scale(terms.total * distributed.world_size()))
        return LossTerms(*sums)

    def _shares(self, batches: Sequence[Batch]) -> list[StepShare]:
        counts = torch.tensor(
            [[len(batch.targets), len(batch.lengths), len(batch.inputs)] for batch in batches],
            dtype=torch.float64,
        )
        totals = distributed.all_reduce(counts.sum(dim=0))
        return [StepShare(*row) for row in (counts / totals).tolist()]

    def _set_learning_rates(self) -> None:
        start = self._self_critical_start
        if self.phase is Phase.SELF_CRITICAL:
            share = self._schedule(self.step - start, self._total_steps - start)
            rates = [self.config.self_critical_learning_rate * share, 0.0]
        else:
            frozen = self._frozen_steps
            rates = [
                self.config.learning_rate * self._schedule(self.step, start),
                self.config.encoder_learning_rate * self._schedule(self.step - frozen, start - frozen),
            ]
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _schedule(self, step: int, steps: int) -> float:
        """Fraction of the peak learning rate: linear warm-up times cosine decay to 0."""
        if step < 0:
            return 0.0
        # A short run would end before it has warmed up.
        warmup = min(1.0, (step + 1) / min(self.config.warmup_steps, max(1, steps // 5)))
        return warmup * (1 + math.cos(math.pi * step / steps)) / 2

    def _update_ema(self, averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        """EMA whose decay starts low, so that short runs are not held back by their first weights."""
        count = int(updates)
        decay = min(self.config.average_decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    def save(self, path: Path, progress: dict[str, Any]) -> None:
        """Save everything needed to resume, atomically, with ``progress``."""
        state = {
            "network": self.network.state_dict(),
            "average": self._ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "baseline": self._baseline,
            "progress": progress,
        }
        with replacing(path) as file:
            torch.save(state, file)

    def restore(self, path: Path) -> dict[str, Any]:
        """Restore what ``save`` wrote; return its ``progress``.

        Raises:
            TrainingError: there is no saved state, it is damaged, or it is of another network.
        """
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
        except FileNotFoundError:
            raise TrainingError(f"There is no run to resume: {path} does not exist.") from None
        except Exception as error:  # a damaged file can raise nearly anything
            raise TrainingError(
                f"{path} is damaged or is not a saved training state ({type(error).__name__})."
            ) from None
        try:
            self.network.load_state_dict(state["network"])
            self._ema.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._check_moments()
            self._scaler.load_state_dict(state["scaler"])
            for group in self._optimizer.param_groups:
                group["weight_decay"] = self.config.weight_decay  # may have changed
            self.step = int(state["step"])
            self._baseline = float(state["baseline"])
            return dict(state["progress"])
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise TrainingError(
                f"{path} is not a state of this network ({type(error).__name__}); resume with the data, the "
                "options and the program version that the run was started with."
            ) from None

    def _check_moments(self) -> None:
        """Refuse moments of parameters in another order, which the optimizer itself would accept."""
        for parameter, moments in self._optimizer.state.items():
            if moments["exp_avg"].shape != parameter.shape:
                raise ValueError("moments of other parameters")
