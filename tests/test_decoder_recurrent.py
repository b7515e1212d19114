"""LSTM and GRU cells against a second implementation of their equations."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.config import CELLS
from model.decoder import RECURRENT_CELLS

N, X, H, D = 3, 5, 4, 6
Array = NDArray[np.float64]
Weights = dict[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def lstm(w: Weights, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """Xu et al., eqs. 1 to 3."""
    gates = w["cell.weight_ih"] @ x + w["cell.bias_ih"] + w["cell.weight_hh"] @ h + w["cell.bias_hh"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(w: Weights, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """Cho et al., eqs. 5 to 8, with the reset gate behind the matrix product, as in cuDNN."""
    of_input = np.split(w["cell.weight_ih"] @ x + w["cell.bias_ih"], 3)
    of_state = np.split(w["cell.weight_hh"] @ h + w["cell.bias_hh"], 3)
    reset, update = (sigmoid(a + b) for a, b in zip(of_input[:2], of_state[:2], strict=True))
    h = update * h + (1 - update) * np.tanh(of_input[2] + reset * of_state[2])
    return h, h


STEPS: dict[str, Callable[[Weights, Array, Array, Array], tuple[Array, Array]]] = {"lstm": lstm, "gru": gru}


def make_cell(name: str) -> torch.nn.Module:
    torch.manual_seed(2)
    return RECURRENT_CELLS[name](X, H, D)


def test_every_configurable_cell_exists() -> None:
    assert set(CELLS) == set(RECURRENT_CELLS) == set(STEPS)


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_cell_equals_equations(name: str) -> None:
    cell = make_cell(name)
    weights = {key: value.double().numpy() for key, value in cell.state_dict().items()}
    x, h, c = torch.randn(N, X), torch.randn(N, H), torch.randn(N, H)
    hidden, memory = cell(x, (h, c if name == "lstm" else h))
    for row in range(N):
        expected = STEPS[name](weights, *(tensor[row].double().numpy() for tensor in (x, h, c)))
        np.testing.assert_allclose(hidden[row].numpy(), expected[0], atol=1e-6)
        np.testing.assert_allclose(memory[row].numpy(), expected[1], atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
@torch.no_grad()
def test_initial_state_comes_from_mean_annotation(name: str) -> None:
    cell = make_cell(name)
    mean = torch.randn(N, D)
    hidden, memory = cell.start(mean)
    torch.testing.assert_close(hidden, torch.tanh(cell.initial_hidden(mean)))
    if name == "lstm":
        torch.testing.assert_close(memory, torch.tanh(cell.initial_cell(mean)))
        assert not torch.allclose(hidden, memory)
    else:
        assert torch.equal(hidden, memory)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_reach_cell_parameters(name: str) -> None:
    cell = make_cell(name)
    hidden, _ = cell(torch.randn(N, X), cell.start(torch.randn(N, D)))
    hidden.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in cell.parameters())
