"""What a batch costs: the forward pass of training, from photos to the number a step minimizes."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model import OptionsError
from model.attention import Memory
from model.attention.hard import HardAttention
from model.decoding.beam_search import allowed_log_probs
from model.decoding.sampling import sample
from model.network import CaptionNetwork, Reading
from training.data.batches import Batch, as_batch
from training.engine.cider_reward import CiderReward
from training.engine.config import TrainConfig
from training.engine.losses import (
    doubly_stochastic_penalty,
    leave_one_out,
    reinforce,
    self_critical,
    smoothed_cross_entropy,
)

# Of the captions drawn for rewards. At 1, every word more is a chance more of a word at random, so that short
# captions win whatever they say, and the captioner learns to be short.
TEMPERATURE = 0.5


class Phase(StrEnum):
    """What a step teaches."""

    FROZEN = "frozen"  # the words of captions, to everything but the encoder
    LEARNING = "learning"  # the same, to the encoder too
    SELF_CRITICAL = "self-critical"  # whole captions for their reward, to the encoder too if it has a rate


def encoder_learns(config: TrainConfig, phase: Phase) -> bool:
    """Whether the steps of a phase change the encoder."""
    if phase is Phase.SELF_CRITICAL:
        return config.self_critical_encoder_learning_rate > 0
    return phase is Phase.LEARNING


class Share(NamedTuple):
    """What part of a step a batch is: 1 when the step is this batch alone.

    A step may be split over processes and over time. Means over the parts are then weighted so that they
    add up to the means over the whole.
    """

    words: float = 1.0
    captions: float = 1.0
    photos: float = 1.0


class Costs(NamedTuple):
    """Means over the batch, times its share: those of a step are the sums over its parts."""

    total: Tensor  # what the step minimizes; the rest is for its report
    cross_entropy: Tensor  # nats a word, label smoothing included; 0 in the self-critical phase
    doubly_stochastic: Tensor  # see doubly_stochastic_penalty
    reward: Tensor  # CIDEr-D of the drawn captions, 0 to 10; 0 in the other phases
    likelihood: Tensor  # mean log p(word) with hard attention, which its baseline follows; else 0


class Objective(nn.Module):
    """The network with what its training minimizes."""

    def __init__(
        self, network: CaptionNetwork, config: TrainConfig, reward: CiderReward | None, longest: int
    ) -> None:
        """``reward`` of drawn captions, and ``longest`` of these: for the self-critical phase alone."""
        super().__init__()
        if config.self_critical_epochs and isinstance(network.decoder.attention, HardAttention):
            raise OptionsError(
                "--self-critical-epochs cannot train --attention hard, which draws where it looks."
            )
        self.network = network
        self._config = config
        self._reward = reward
        self._longest = longest

    def forward(self, batch: Batch, share: Share, phase: Phase, baseline: float) -> Costs:
        """What to minimize, and what it is made of.

        Args:
            batch: on the network's device but for ``lengths``.
            share: of the step that this batch is.
            phase: what the step teaches.
            baseline: nats a word, of hard attention's rewards; see ``reinforce``.
        """
        # Captions are rewarded as they were drawn, without dropout.
        self.network.train(phase is not Phase.SELF_CRITICAL)
        self.network.encoder.train(phase is Phase.LEARNING)
        with contextlib.nullcontext() if encoder_learns(self._config, phase) else torch.no_grad():
            features = self._features(batch.inputs)
        if phase is Phase.SELF_CRITICAL:
            return self._reward_captions(batch, features, share)
        return self._read_captions(batch, features, share, baseline)

    def _features(self, inputs: Tensor) -> Tensor:
        """Features (B, L, F) of photos (B, 3, S, S), or of features themselves."""
        if inputs.dim() == 3:
            return inputs
        features: Tensor = self.network.encoder(inputs)
        return features

    def _read_captions(self, batch: Batch, features: Tensor, share: Share, baseline: float) -> Costs:
        """Teacher forcing: the words that people wrote."""
        reading = self._read(batch, self.network.remember_features(features))
        words = smoothed_cross_entropy(
            reading.logits, batch.targets, label_smoothing=self._config.label_smoothing
        )
        penalty = self._doubly_stochastic(reading)
        total = share.words * words + share.captions * self._config.doubly_stochastic * penalty
        likelihood = torch.zeros(())
        if reading.looks.chosen is not None:
            found = reinforce(reading.logits, batch.targets, batch.lengths, reading.looks, baseline)
            total = total + share.words * found.loss
            likelihood = torch.tensor(share.words * found.reward)
        return Costs(total, share.words * words, share.captions * penalty, torch.zeros(()), likelihood)

    def _reward_captions(self, batch: Batch, features: Tensor, share: Share) -> Costs:
        """Self-critical training: captions drawn from the network, made likelier the better they are."""
        drawn = self._draw(features)
        rewards = self._rewards(drawn, batch.references())  # (B, K)
        order = sorted(range(len(drawn)), key=lambda row: -len(drawn[row]))
        captions = [(row // self._config.samples, drawn[row]) for row in order]
        samples = as_batch(batch.inputs, captions).to(features.device)
        reading = self._read(samples, self.network.remember_features(features))
        advantages = leave_one_out(rewards).flatten()[order].to(features.device)
        log_probs = self._log_probs(reading.logits, len(samples.lengths))
        gain = self_critical(log_probs, samples.targets, samples.lengths, advantages)
        penalty = self._doubly_stochastic(reading)
        total = share.photos * (gain + self._config.doubly_stochastic * penalty)
        zero = torch.zeros(())
        return Costs(total, zero, share.photos * penalty, share.photos * rewards.mean(), zero)

    def _read(self, batch: Batch, memory: Memory) -> Reading:
        """What the decoder says of the captions of a batch; ``memory`` has a row a photo."""
        return self.network.read(memory.select(batch.owners), batch.words, batch.lengths)

    @torch.no_grad()
    def _draw(self, features: Tensor) -> list[list[int]]:
        """``samples`` captions of each photo, drawn as the network stands when it captions."""
        memory = self.network.remember_features(features)
        rows = torch.arange(len(features), device=features.device).repeat_interleave(self._config.samples)
        memory = memory.select(rows)
        decoder = self.network.decoder
        start = decoder.initial_state(memory)
        return sample(decoder.step, start, memory, max_length=self._longest, temperature=TEMPERATURE)

    def _log_probs(self, logits: Tensor, captions: int) -> Tensor:
        """With which words were drawn: a word that never can be would otherwise be pushed up without end."""
        first, rest = logits[:captions] / TEMPERATURE, logits[captions:] / TEMPERATURE
        return torch.cat((allowed_log_probs(first, is_first=True), allowed_log_probs(rest, is_first=False)))

    def _rewards(self, drawn: list[list[int]], references: list[list[list[int]]]) -> Tensor:
        """The reward of every drawn caption, (B, K)."""
        assert self._reward is not None
        each = self._config.samples
        return torch.tensor(
            [
                self._reward.of(drawn[place * each : (place + 1) * each], of_photo)
                for place, of_photo in enumerate(references)
            ]
        )

    def _doubly_stochastic(self, reading: Reading) -> Tensor:
        return doubly_stochastic_penalty(reading.looks.alpha, target=self._config.doubly_stochastic_target)
