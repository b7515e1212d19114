"""Cross entropy and the doubly stochastic penalty.

``test_engine_reinforce`` has what hard attention adds.
"""

import math

import pytest
import torch

from model.network import CaptionNetwork
from training.data.batches import Example, collate
from training.engine.losses import doubly_stochastic_penalty, smoothed_cross_entropy


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(8)


def test_cross_entropy_equals_formula(generator):
    logits = torch.randn(6, 11, generator=generator)
    targets = torch.tensor([0, 1, 2, 3, 4, 10])  # the special tokens are words like others here
    by_hand = [-math.log(math.exp(row[t]) / row.exp().sum()) for row, t in zip(logits, targets, strict=True)]
    loss = smoothed_cross_entropy(logits, targets, label_smoothing=0.0)
    assert loss.item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)


def test_cross_entropy_of_bfloat16_logits_is_float32(generator):
    logits = torch.randn(6, 11, generator=generator).bfloat16()
    targets = torch.arange(6)
    half = smoothed_cross_entropy(logits, targets, label_smoothing=0.0)
    full = smoothed_cross_entropy(logits.float(), targets, label_smoothing=0.0)
    assert half.dtype == torch.float32
    assert half.item() == full.item()


def test_loss_ignores_padding(network: CaptionNetwork, generator):
    photos = torch.randn(3, 3, 40, 40, generator=generator)
    captions = [[4, 5, 6, 7, 8, 9, 10, 2], [4, 6, 2], [5, 2]]

    def loss_of(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        batch = collate([Example(photos[row], [captions[row]]) for row in rows])
        memory = network.encode(batch.inputs).select(batch.owners)
        forced = network.teacher_force(memory, batch.words, batch.lengths)
        cross_entropy = smoothed_cross_entropy(forced.logits, batch.targets, label_smoothing=0.1)
        penalty = doubly_stochastic_penalty(forced.maps.alpha)
        return cross_entropy, penalty, len(batch.targets)

    with torch.no_grad():
        together = loss_of([0, 1, 2])
        alone = [loss_of([row]) for row in range(3)]
    words = sum(count for _, _, count in alone)
    assert together[2] == words == 8 + 3 + 2
    assert together[0].item() == pytest.approx(sum(ce.item() * n for ce, _, n in alone) / words, rel=1e-5)
    assert together[1].item() == pytest.approx(sum(penalty.item() for _, penalty, _ in alone) / 3, rel=1e-5)


def test_penalty_is_zero_for_unit_totals(generator):
    alphas = torch.rand(4, 6, 5, generator=generator)
    alphas /= alphas.sum(dim=1, keepdim=True)
    assert doubly_stochastic_penalty(alphas).item() == pytest.approx(0, abs=1e-12)


def test_penalty_equals_formula():
    alphas = torch.tensor(
        [[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 0.0]]]
    )  # totals 1.5 0.5 | 0.25 0.75
    expected = (0.5**2 + 0.5**2 + 0.75**2 + 0.25**2) / 4
    assert doubly_stochastic_penalty(alphas).item() == pytest.approx(expected)


def test_penalty_is_independent_of_grid_size():
    coarse, fine = torch.full((1, 2, 4), 0.1), torch.full((1, 2, 400), 0.1)
    one, other = (doubly_stochastic_penalty(alphas).item() for alphas in (coarse, fine))
    assert one == pytest.approx(other)


def test_penalty_gradient_evens_attention():
    scores = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]], requires_grad=True)
    doubly_stochastic_penalty(scores.softmax(2)).backward()
    assert (scores.grad[..., 0] > 0).all()
    assert (scores.grad[..., 1] < 0).all()


def test_penalty_is_zero_without_maps():
    assert doubly_stochastic_penalty(None).item() == 0


def test_label_smoothing_raises_minimum_loss():
    targets = torch.tensor([3])
    share, size = 0.1, 11
    best = torch.full((1, size), share / size)
    best[0, 3] += 1 - share  # the smoothed distribution itself
    sure = torch.full((1, size), -1e4)
    sure[0, 3] = 0.0
    plain = smoothed_cross_entropy(sure, targets, label_smoothing=0.0).item()
    smooth = smoothed_cross_entropy(best.log(), targets, label_smoothing=share).item()
    entropy = -(best * best.log()).sum().item()
    assert plain == 0
    assert smooth == pytest.approx(entropy, rel=1e-5)
    assert smoothed_cross_entropy(sure, targets, label_smoothing=share).item() > smooth > 0.5
