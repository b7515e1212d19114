"""The loss: every real word counts once, and attention is asked to cover the photograph evenly."""

import math

import pytest
import torch

from model.network import CaptionNetwork
from training.data import Example, collate
from training.loss import captioning_loss, doubly_stochastic_penalty


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(8)


def test_cross_entropy_is_the_mean_surprise_of_the_true_words(generator):
    logits = torch.randn(6, 11, generator=generator)
    targets = torch.tensor([0, 1, 2, 3, 4, 10])  # the special tokens are words like others here
    by_hand = [-math.log(math.exp(row[t]) / row.exp().sum()) for row, t in zip(logits, targets, strict=True)]
    loss = captioning_loss(logits, targets, torch.zeros(2, 3, 5), label_smoothing=0.0)
    assert loss.cross_entropy.item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)


def test_logits_in_half_precision_lose_no_more_than_their_own_rounding(generator):
    logits = torch.randn(6, 11, generator=generator).bfloat16()
    targets = torch.arange(6)
    alphas = torch.zeros(2, 3, 5)
    half = captioning_loss(logits, targets, alphas, label_smoothing=0.0).cross_entropy
    full = captioning_loss(logits.float(), targets, alphas, label_smoothing=0.0).cross_entropy
    assert half.dtype == torch.float32
    assert half.item() == full.item()


def test_padding_changes_neither_part_of_the_loss(network: CaptionNetwork, generator):
    photographs = torch.randn(3, 3, 40, 40, generator=generator)
    captions = [[4, 5, 6, 7, 8, 9, 10], [4, 6], [5]]

    def loss_of(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        batch = collate([Example(photographs[row], [captions[row]]) for row in rows])
        memory = network.remember(batch.inputs).select(batch.owners)
        reading = network.read(memory, batch.words, batch.lengths)
        loss = captioning_loss(reading.logits, batch.targets, reading.alphas, label_smoothing=0.1)
        return loss.cross_entropy, loss.doubly_stochastic, len(batch.targets)

    with torch.no_grad():
        together = loss_of([0, 1, 2])
        alone = [loss_of([row]) for row in range(3)]
    words = sum(count for _, _, count in alone)
    assert together[2] == words == 8 + 3 + 2
    assert together[0].item() == pytest.approx(sum(ce.item() * n for ce, _, n in alone) / words, rel=1e-5)
    assert together[1].item() == pytest.approx(sum(penalty.item() for _, penalty, _ in alone) / 3, rel=1e-5)


def test_the_penalty_is_zero_when_every_location_got_exactly_one_in_total(generator):
    alphas = torch.rand(4, 6, 5, generator=generator)
    alphas /= alphas.sum(dim=1, keepdim=True)
    assert doubly_stochastic_penalty(alphas).item() == pytest.approx(0, abs=1e-12)


def test_the_penalty_is_the_mean_squared_distance_of_the_totals_from_one():
    alphas = torch.tensor(
        [[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 0.0]]]
    )  # totals 1.5 0.5 | 0.25 0.75
    expected = (0.5**2 + 0.5**2 + 0.75**2 + 0.25**2) / 4
    assert doubly_stochastic_penalty(alphas).item() == pytest.approx(expected)


def test_the_penalty_does_not_depend_on_how_fine_the_grid_is():
    coarse, fine = torch.full((1, 2, 4), 0.1), torch.full((1, 2, 400), 0.1)
    assert doubly_stochastic_penalty(coarse).item() == pytest.approx(doubly_stochastic_penalty(fine).item())


def test_the_penalty_pulls_attention_from_looked_at_places_to_neglected_ones():
    alphas = torch.tensor([[[0.9, 0.1], [0.8, 0.2]]], requires_grad=True)
    doubly_stochastic_penalty(alphas).backward()
    assert (alphas.grad[..., 0] > 0).all()
    assert (alphas.grad[..., 1] < 0).all()


def test_label_smoothing_raises_the_least_reachable_loss():
    targets = torch.tensor([3])
    alphas = torch.zeros(1, 1, 2)
    share, size = 0.1, 11
    best = torch.full((1, size), share / size)
    best[0, 3] += 1 - share  # the smoothed distribution itself
    sure = torch.full((1, size), -1e4)
    sure[0, 3] = 0.0
    plain = captioning_loss(sure, targets, alphas, label_smoothing=0.0).cross_entropy.item()
    smooth = captioning_loss(best.log(), targets, alphas, label_smoothing=share).cross_entropy.item()
    entropy = -(best * best.log()).sum().item()
    assert plain == 0
    assert smooth == pytest.approx(entropy, rel=1e-5)
    assert captioning_loss(sure, targets, alphas, label_smoothing=share).cross_entropy.item() > smooth > 0.5
