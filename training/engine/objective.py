"""The training objective: the forward pass from a batch to the loss that a step minimizes."""

import contextlib
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model import OptionsError
from model.attention.hard import HardAttention
from model.decoding.constraints import allowed_log_probs
from model.decoding.sampling import sample
from model.network import CaptionNetwork, TeacherForced
from training.data.batches import Batch, as_batch
from training.engine import losses
from training.engine.cider_reward import CiderReward
from training.engine.config import TrainConfig

# Of self-critical sampling. At 1, every further word is likely to be a random one, so that short captions get
# higher rewards and the captioner learns to be short.
TEMPERATURE = 0.5


class Phase(StrEnum):
    """What a step trains, and by which loss."""

    FROZEN = "frozen"  # cross-entropy; the encoder is frozen
    LEARNING = "learning"  # cross-entropy; the encoder is trained too
    SELF_CRITICAL = "self-critical"  # CIDEr of sampled captions; the encoder is frozen


class StepShare(NamedTuple):
    """Fraction of a step's words, captions and images that a batch has.

    A step may be split over processes and over time. Means over its batches are weighted by these, so
    that they add up to the means over the step.
    """

    words: float = 1.0
    captions: float = 1.0
    images: float = 1.0


class LossTerms(NamedTuple):
    """Means over a batch times its share of the step, so that those of a step are sums over its batches."""

    total: Tensor  # what the step minimizes; the others are reported
    cross_entropy: Tensor  # nats a word, with label smoothing; 0 in the self-critical phase
    doubly_stochastic: Tensor  # see doubly_stochastic_penalty
    reward: Tensor  # CIDEr-D of the sampled captions, 0 to 10; 0 in the other phases
    likelihood: Tensor  # mean log p(word) for the baseline of hard attention; else 0


class Objective(nn.Module):
    """The network with its loss."""

    def __init__(
        self, network: CaptionNetwork, config: TrainConfig, reward: CiderReward | None, max_length: int
    ) -> None:
        """``reward`` and ``max_length`` of sampled captions are used in the self-critical phase only."""
        super().__init__()
        if config.self_critical_epochs and isinstance(network.decoder.attention, HardAttention):
            raise OptionsError(
                "--self-critical-epochs cannot train --attention hard, which samples locations; choose "
                "another --attention."
            )
        self.network = network
        self._config = config
        self._reward = reward
        self._max_length = max_length

    def forward(self, batch: Batch, share: StepShare, phase: Phase, baseline: float) -> LossTerms:
        """Compute the loss of a batch.

        Args:
            batch: on the network's device except for ``lengths``.
            share: of the step that this batch is.
            phase: selects the loss.
            baseline: of hard attention, in nats a word; see ``reinforce``.
        """
        # Sampled captions are scored as they were sampled, without dropout.
        self.network.train(phase is not Phase.SELF_CRITICAL)
        self.network.encoder.train(phase is Phase.LEARNING)
        with contextlib.nullcontext() if phase is Phase.LEARNING else torch.no_grad():
            features = self._features(batch.inputs)
        if phase is Phase.SELF_CRITICAL:
            return self._self_critical_terms(batch, features, share)
        return self._cross_entropy_terms(batch, features, share, baseline)

    def _features(self, inputs: Tensor) -> Tensor:
        """Features (B, L, F) of images (B, 3, S, S), or ``inputs`` if they are features."""
        if inputs.dim() == 3:
            return inputs
        features: Tensor = self.network.encoder(inputs)
        return features

    def _cross_entropy_terms(
        self, batch: Batch, features: Tensor, share: StepShare, baseline: float
    ) -> LossTerms:
        forced = self._teacher_force(batch, features)
        cross_entropy = losses.smoothed_cross_entropy(
            forced.logits, batch.targets, label_smoothing=self._config.label_smoothing
        )
        penalty = losses.doubly_stochastic_penalty(forced.maps.alpha)
        total = share.words * cross_entropy + share.captions * self._config.doubly_stochastic * penalty
        likelihood = torch.zeros(())
        if forced.maps.chosen is not None:
            found = losses.reinforce(forced.logits, batch.targets, batch.lengths, forced.maps, baseline)
            total = total + share.words * found.loss
            likelihood = torch.tensor(share.words * found.reward)
        return LossTerms(
            total, share.words * cross_entropy, share.captions * penalty, torch.zeros(()), likelihood
        )

    def _self_critical_terms(self, batch: Batch, features: Tensor, share: StepShare) -> LossTerms:
        sampled = self._sample(features)
        rewards = self._rewards(sampled, batch.references())  # (B, K)
        order = sorted(range(len(sampled)), key=lambda row: -len(sampled[row]))
        captions = [(row // self._config.samples, sampled[row]) for row in order]
        samples = as_batch(batch.inputs, captions).to(features.device)
        forced = self._teacher_force(samples, features)
        advantages = losses.leave_one_out(rewards).flatten()[order].to(features.device)
        log_probs = self._log_probs(forced.logits, len(samples.lengths))
        loss = losses.self_critical(log_probs, samples.targets, samples.lengths, advantages)
        penalty = losses.doubly_stochastic_penalty(forced.maps.alpha)
        total = share.images * (loss + self._config.doubly_stochastic * penalty)
        zero = torch.zeros(())
        return LossTerms(total, zero, share.images * penalty, share.images * rewards.mean(), zero)

    def _teacher_force(self, batch: Batch, features: Tensor) -> TeacherForced:
        memory = self.network.encode_features(features).select(batch.owners)
        return self.network.teacher_force(memory, batch.words, batch.lengths)

    @torch.no_grad()
    def _sample(self, features: Tensor) -> list[list[int]]:
        """``samples`` captions of each image, sampled from the current network in evaluation mode."""
        rows = torch.arange(len(features), device=features.device).repeat_interleave(self._config.samples)
        memory = self.network.encode_features(features).select(rows)
        decoder = self.network.decoder
        state = decoder.initial_state(memory)
        return sample(decoder.step, state, memory, max_length=self._max_length, temperature=TEMPERATURE)

    def _log_probs(self, logits: Tensor, captions: int) -> Tensor:
        """Log-probabilities of the sampling distribution.

        Words that can never be sampled have to be left out, or they would be pushed up without bound.
        """
        first, rest = logits[:captions] / TEMPERATURE, logits[captions:] / TEMPERATURE
        return torch.cat((allowed_log_probs(first, is_first=True), allowed_log_probs(rest, is_first=False)))

    def _rewards(self, sampled: list[list[int]], references: list[list[list[int]]]) -> Tensor:
        """Reward of every sampled caption, (B, K)."""
        assert self._reward is not None
        count = self._config.samples
        groups = [sampled[first : first + count] for first in range(0, len(sampled), count)]
        return torch.tensor([self._reward.score(*pair) for pair in zip(groups, references, strict=True)])
