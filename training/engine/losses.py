"""What training minimizes: of words, of whole captions, and of where the network looked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.attention import Look

DOUBLY_STOCHASTIC_TARGETS = ("1", "T/L")
ENTROPY_WEIGHT = 0.002  # lambda_e of hard attention, that of the authors' code
BASELINE_MEMORY = 0.9  # share of the moving baseline that a batch leaves (Xu et al. 2015, eq. 12)


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
    """Mean over the words, in nats.

    Args:
        logits: (words, V).
        targets: (words,) the true ids; there is no padding among them.
        label_smoothing: share of the probability spread over the whole vocabulary, 0 to 1.
    """
    return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)


def doubly_stochastic_penalty(alphas: Tensor | None, *, target: str) -> Tensor:
    """How unevenly a caption as a whole looked: the mean of (target - sum_t alpha_ti)^2 over all locations.

    Xu et al. 2015, eq. 14, which sums over the locations where this takes the mean, so that its
    weight means the same for any grid.

    The weights of a caption of T words sum to T whatever the scores under their softmax are, so both targets
    give the scores the same gradient, toward an even T / L; they differ in the value alone, which is 0
    for even maps with T / L.

    Args:
        alphas: (N, T, L), zero after the end of a caption; None, without maps, costs nothing.
        target: one of ``DOUBLY_STOCHASTIC_TARGETS``.
    """
    if alphas is None:
        return torch.zeros(())
    looked = alphas.sum(dim=1)  # (N, L)
    wanted = looked.new_ones(()) if target == "1" else looked.mean(dim=1, keepdim=True)
    return torch.square(wanted - looked).mean()


class Reinforcement(NamedTuple):
    """What the locations that hard attention drew teach."""

    loss: Tensor  # its gradient is the REINFORCE estimate, a mean over the words of the batch
    reward: float  # mean log p(word) in nats: what the moving baseline follows


def reinforce(
    logits: Tensor, targets: Tensor, lengths: Tensor, looks: Look, baseline: float
) -> Reinforcement:
    """REINFORCE for the drawn locations: Xu et al. 2015, eqs. 10 to 12; Williams 1992.

    The gradient of the expected log p(y) with respect to the weights alpha is estimated by
    (R - b) d log alpha_(s_t). Two things that leave its mean as it is make it less noisy than the paper's
    R = log p(y): a location is paid for the words from its own on alone, since it cannot change those
    before; and b is ``baseline`` nats for each of these words, since longer remainders cost more. The
    entropy of the weights is rewarded, with the weight ``ENTROPY_WEIGHT``.

    Args:
        logits: (words, V), packed as ``CaptionNetwork.read`` packs them.
        targets: (words,) the true ids.
        lengths: (N,) words of each caption, on the CPU.
        looks: (N, T, ...), with ``chosen`` -1 where nothing was drawn.
        baseline: moving average of log p(word), in nats, of batches before this one.
    """
    assert looks.alpha is not None
    assert looks.chosen is not None
    log_probs = (
        logits.detach().float().log_softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
    )  # (words,)
    layout = pack_padded_sequence(looks.chosen, lengths, batch_first=True)
    rewards, _ = pad_packed_sequence(layout._replace(data=log_probs - baseline), batch_first=True)  # (N, T)
    advantage = rewards.flip(1).cumsum(1).flip(1)  # (N, T), of the words from this one on
    drawn = looks.chosen >= 0  # (N, T)
    log_alpha = looks.alpha.clamp_min(torch.finfo(torch.float32).tiny).log()  # (N, T, L)
    log_chosen = log_alpha.gather(2, looks.chosen.clamp_min(0).unsqueeze(2)).squeeze(2)  # (N, T)
    entropy = -(looks.alpha * log_alpha).sum(dim=2)  # (N, T), 0 after the end of a caption
    gain = (advantage * log_chosen + ENTROPY_WEIGHT * entropy) * drawn
    return Reinforcement(-gain.sum() / len(targets), float(log_probs.mean()))


def self_critical(log_probs: Tensor, targets: Tensor, lengths: Tensor, rewards: Tensor) -> Tensor:
    """REINFORCE for whole captions: Rennie et al. 2017, "Self-critical Sequence Training" (arXiv 1612.00563).

    The reward of a sampled caption counts from a baseline, here the mean reward of the other samples of
    the same photo (leave one out: Luo 2020, arXiv 2003.09971) in place of that of the greedy caption.

    Args:
        log_probs: (words, V) with which the captions were sampled, packed as ``CaptionNetwork.read`` packs.
        targets: (words,) the sampled ids.
        lengths: (N,) words of each sampled caption, on the CPU, longest first.
        rewards: (N,) of each sampled caption less its baseline.

    Returns:
        A mean over the captions: one over the words would make the words of long captions count less.
    """
    chosen = log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)  # (words,)
    everywhere = rewards.unsqueeze(1).expand(-1, int(lengths[0]))  # (N, T)
    per_word = pack_padded_sequence(everywhere, lengths, batch_first=True).data  # (words,)
    return -(per_word * chosen).sum() / len(lengths)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Rewards (B, K) of K > 1 samples a photo, each less the mean of the others of its photo."""
    samples = rewards.shape[1]
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (samples - 1)
    return rewards - others
