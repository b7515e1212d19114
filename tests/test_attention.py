"""Properties of attention, and agreement with a second, direct writing of its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.attention import AdditiveAttention, build_attention, weighted_sum
from model.errors import CheckpointError

N, L, D, H, A = 4, 5, 6, 7, 3


@pytest.fixture
def attention() -> AdditiveAttention:
    torch.manual_seed(3)
    return AdditiveAttention(D, H, A)


@pytest.fixture
def query() -> torch.Tensor:
    return torch.randn(N, H, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def annotations() -> torch.Tensor:
    return torch.randn(N, L, D, generator=torch.Generator().manual_seed(2))


def test_weights_are_never_negative_and_sum_to_one(attention, query, annotations) -> None:
    attended = attention(query, attention.keys(annotations), annotations)
    assert attended.alpha.shape == (N, L)
    assert attended.context.shape == (N, D)
    assert (attended.alpha >= 0).all()
    torch.testing.assert_close(attended.alpha.sum(1), torch.ones(N))


def test_another_query_looks_elsewhere(attention, query, annotations) -> None:
    keys = attention.keys(annotations)
    one, other = attention(query, keys, annotations), attention(-query, keys, annotations)
    assert ((one.alpha - other.alpha).abs().sum(1) > 1e-3).all()


def test_permuting_the_locations_permutes_the_weights(attention, query, annotations) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    straight = attention(query, attention.keys(annotations), annotations)
    permuted = attention(query, attention.keys(annotations[:, order]), annotations[:, order])
    torch.testing.assert_close(permuted.alpha, straight.alpha[:, order])
    torch.testing.assert_close(permuted.context, straight.context)


def test_a_row_alone_gets_what_it_gets_in_a_batch(attention, query, annotations) -> None:
    together = attention(query, attention.keys(annotations), annotations)
    alone = attention(query[2:3], attention.keys(annotations[2:3]), annotations[2:3])
    torch.testing.assert_close(alone.context[0], together.context[2])


def test_additive_attention_is_its_formula(attention, query, annotations) -> None:
    weights = {name: value.detach().double().numpy() for name, value in attention.named_parameters()}
    q, a = query.double().numpy(), annotations.double().numpy()
    energies = np.empty((N, L))
    for n in range(N):
        for i in range(L):
            key = weights["key_layer.weight"] @ a[n, i] + weights["key_layer.bias"]
            energies[n, i] = weights["energy_layer.weight"][0] @ np.tanh(
                key + weights["query_layer.weight"] @ q[n]
            )
    alpha = np.exp(energies) / np.exp(energies).sum(1, keepdims=True)
    attended = attention(query, attention.keys(annotations), annotations)
    np.testing.assert_allclose(attended.alpha.detach().numpy(), alpha, atol=1e-5)
    context = np.einsum("nl,nld->nd", alpha, a)
    np.testing.assert_allclose(attended.context.detach().numpy(), context, atol=1e-5)


def test_uniform_weights_give_the_mean_annotation(annotations) -> None:
    torch.testing.assert_close(weighted_sum(torch.full((N, L), 1 / L), annotations), annotations.mean(1))


def test_gradients_reach_every_parameter(attention, query, annotations) -> None:
    attention(query, attention.keys(annotations), annotations).context.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in attention.parameters())


def test_the_softmax_is_in_single_precision_under_mixed_precision(attention, query, annotations) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        attended = attention(query, attention.keys(annotations), annotations)
    assert attended.alpha.dtype == torch.float32


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="additive"):
        build_attention("telepathic", D, H, A)
