"""Loss functions: cross-entropy, doubly stochastic penalty, REINFORCE and self-critical loss."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.attention import AttentionMaps

ENTROPY_WEIGHT = 0.002  # lambda_e of hard attention, as in the authors' code
BASELINE_DECAY = 0.9  # of the moving-average baseline of hard attention (Xu et al. 2015, eq. 12)


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
    """Cross-entropy in nats, a mean over the words.

    Args:
        logits: (words, V).
        targets: (words,) true ids, without padding.
        label_smoothing: probability mass spread over the whole vocabulary, 0 to 1.
    """
    return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)


def doubly_stochastic_penalty(alphas: Tensor | None) -> Tensor:
    """Doubly stochastic attention penalty: the mean of (1 - sum_t alpha_ti)^2 over captions and locations.

    Xu et al. 2015, eq. 14, which sums over the locations. The mean gives the weight of the penalty the
    same meaning for every grid.

    Args:
        alphas: (N, T, L), zero after the end of a caption; None, without attention maps, gives 0.
    """
    if alphas is None:
        return torch.zeros(())
    return torch.square(1 - alphas.sum(dim=1)).mean()


class Reinforcement(NamedTuple):
    """REINFORCE for the locations that hard attention sampled."""

    loss: Tensor  # its gradient is the REINFORCE estimate, a mean over the words of the batch
    reward: float  # mean log p(word) in nats, which the moving-average baseline follows


def reinforce(
    logits: Tensor, targets: Tensor, lengths: Tensor, maps: AttentionMaps, baseline: float
) -> Reinforcement:
    """REINFORCE for sampled locations: Xu et al. 2015, eqs. 10 to 12; Williams 1992.

    The gradient of the expected log p(y) with respect to alpha is estimated by (R - b) d log alpha_(s_t).
    Two changes reduce the variance of the paper's R = log p(y) without bias: a location's reward is that
    of the words from its own on, since it cannot change earlier words; and b is ``baseline`` nats for each
    of these words, since longer remainders cost more. An entropy bonus has the weight ``ENTROPY_WEIGHT``.

    Args:
        logits: (words, V), packed as ``CaptionNetwork.read`` packs them.
        targets: (words,) true ids.
        lengths: (N,) words of each caption, on the CPU.
        maps: (N, T, ...), with ``chosen`` -1 where nothing was sampled.
        baseline: moving average of log p(word), in nats, over earlier batches.
    """
    assert maps.alpha is not None
    assert maps.chosen is not None
    log_probs = (
        logits.detach().float().log_softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
    )  # (words,)
    layout = pack_padded_sequence(maps.chosen, lengths, batch_first=True)
    rewards, _ = pad_packed_sequence(layout._replace(data=log_probs - baseline), batch_first=True)  # (N, T)
    advantage = rewards.flip(1).cumsum(1).flip(1)  # (N, T), over the words from this one on
    is_sampled = maps.chosen >= 0  # (N, T)
    log_alpha = maps.alpha.clamp_min(torch.finfo(torch.float32).tiny).log()  # (N, T, L)
    log_chosen = log_alpha.gather(2, maps.chosen.clamp_min(0).unsqueeze(2)).squeeze(2)  # (N, T)
    entropy = -(maps.alpha * log_alpha).sum(dim=2)  # (N, T), 0 after the end of a caption
    gain = (advantage * log_chosen + ENTROPY_WEIGHT * entropy) * is_sampled
    return Reinforcement(-gain.sum() / len(targets), float(log_probs.mean()))


def self_critical(log_probs: Tensor, targets: Tensor, lengths: Tensor, rewards: Tensor) -> Tensor:
    """Self-critical loss: Rennie et al. 2017, "Self-critical Sequence Training" (arXiv 1612.00563).

    The baseline of a sampled caption is the mean reward of the other samples of the same image (leave one
    out: Luo 2020, arXiv 2003.09971) instead of the reward of the greedy caption.

    Args:
        log_probs: (words, V) of the sampling distribution, packed as ``CaptionNetwork.read`` packs.
        targets: (words,) sampled ids.
        lengths: (N,) words of each sampled caption, on the CPU, longest first.
        rewards: (N,) reward of each sampled caption minus its baseline.

    Returns:
        A mean over the captions; a mean over the words would give words of long captions less weight.
    """
    chosen = log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)  # (words,)
    expanded = rewards.unsqueeze(1).expand(-1, int(lengths[0]))  # (N, T)
    per_word = pack_padded_sequence(expanded, lengths, batch_first=True).data  # (words,)
    return -(per_word * chosen).sum() / len(lengths)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Rewards (B, K) of K > 1 samples an image, minus the mean of the other samples of the image."""
    samples = rewards.shape[1]
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (samples - 1)
    return rewards - others
