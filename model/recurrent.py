"""The recurrent cells of the decoder: one interface, a state of two tensors (N, H) and how it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

States = tuple[Tensor, Tensor]


class RecurrentCell(Protocol):
    """What the decoder asks of its cell."""

    def start(self, mean: Tensor) -> States:
        """The state before the first word, of the mean annotation (N, D)."""
        ...

    def __call__(self, x: Tensor, state: States) -> States:
        """The state after the input (N, input_dim)."""
        ...


class LSTM(nn.Module):
    """Long short-term memory: Xu et al. 2015, eqs. 1 to 3. Its state is h_t and c_t."""

    def __init__(self, input_dim: int, hidden_dim: int, start_dim: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(input_dim, hidden_dim)
        self.initial_hidden = nn.Linear(start_dim, hidden_dim)
        self.initial_cell = nn.Linear(start_dim, hidden_dim)

    def start(self, mean: Tensor) -> States:
        """h_0 and c_0, each a one-layer perceptron of the mean annotation (N, D) (section 3.1.2)."""
        return torch.tanh(self.initial_hidden(mean)), torch.tanh(self.initial_cell(mean))

    def forward(self, x: Tensor, state: States) -> States:
        """The state after the input (N, input_dim)."""
        hidden, cell = self.cell(x, state)
        return hidden, cell


class GRU(nn.Module):
    """Gated recurrent unit: Cho et al. 2014 (arXiv 1406.1078). It has h_t alone, which stands for both."""

    def __init__(self, input_dim: int, hidden_dim: int, start_dim: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(input_dim, hidden_dim)
        self.initial_hidden = nn.Linear(start_dim, hidden_dim)

    def start(self, mean: Tensor) -> States:
        """h_0, a one-layer perceptron of the mean annotation (N, D)."""
        hidden = torch.tanh(self.initial_hidden(mean))
        return hidden, hidden

    def forward(self, x: Tensor, state: States) -> States:
        """The state after the input (N, input_dim)."""
        hidden = self.cell(x, state[0])
        return hidden, hidden


RECURRENT_CELLS: dict[str, Callable[[int, int, int], RecurrentCell]] = {"lstm": LSTM, "gru": GRU}
