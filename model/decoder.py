"""The attention LSTM that writes a caption: one step of it, which training and search share.

Equations are those of Xu et al. 2015, "Show, Attend and Tell" (arXiv 1502.03044v3). Symbols:

    in code        paper   meaning
    annotations    a_i     feature grid, flattened row by row               (N, L, D)
    alpha          α_ti    attention weights                                (N, L)
    context        ẑ_t     what was looked at, gated                        (N, D)
    beta           β_t     gate on the context                              (N, 1)
    hidden, cell   h, c    LSTM state                                       (N, H)
    logits         p(y_t)  scores of the next word, before softmax          (N, V)

N rows: one a caption in training, one a hypothesis in search. E embedding, A attention.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import build_attention
from model.config import ModelConfig


class DecoderState(NamedTuple):
    """What the decoder remembers between words."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)

    def select(self, rows: Tensor | slice) -> DecoderState:
        """The state of some of the rows, in the order given."""
        return DecoderState(self.hidden[rows], self.cell[rows])


class Memory(NamedTuple):
    """What the decoder can look at: annotations and the attention's keys, one row a caption."""

    annotations: Tensor  # (N, L, D)
    keys: Tensor  # (N, L, A)

    def select(self, rows: Tensor | slice) -> Memory:
        """The memory of some of the rows; an index may repeat, as for five captions of a photograph."""
        return Memory(self.annotations[rows], self.keys[rows])


class DecoderStep(NamedTuple):
    """What one step gives."""

    logits: Tensor  # (N, V)
    alpha: Tensor  # (N, L)
    beta: Tensor  # (N, 1)
    state: DecoderState


class Decoder(nn.Module):
    """LSTM with attention, gate and deep output. Keeps no state of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, e, h = config.annotation_dim, config.embedding_dim, config.hidden_dim
        self.embedding = nn.Embedding(config.vocabulary_size, e)
        self.attention = build_attention(config.attention, d, h, config.attention_dim)
        self.gate = nn.Linear(h, 1)
        self.lstm = nn.LSTMCell(e + d, h)
        self.initial_hidden = nn.Linear(d, h)
        self.initial_cell = nn.Linear(d, h)
        self.state_to_output = nn.Linear(h, e)
        self.context_to_output = nn.Linear(d, e, bias=False)
        self.output = nn.Linear(e, config.vocabulary_size)
        self.dropout = nn.Dropout(config.dropout)

    def remember(self, annotations: Tensor) -> Memory:
        """Annotations (N, L, D) with the attention's keys, computed once for all words."""
        return Memory(annotations, self.attention.keys(annotations))

    def initial_state(self, memory: Memory) -> DecoderState:
        """h_0 and c_0, each a one-layer perceptron of the mean annotation (section 3.1.2)."""
        mean = memory.annotations.mean(dim=1)  # (N, D)
        return DecoderState(
            torch.tanh(self.initial_hidden(mean)), torch.tanh(self.initial_cell(mean))
        )  # (N, H) each

    def step(self, words: Tensor, state: DecoderState, memory: Memory) -> DecoderStep:
        """One word on: from the previous words' ids (N,) to the scores of the next.

        Attention (eqs. 4 and 5) and gate (section 4.2.1) see the state before the word, h_(t-1); the
        LSTM (eqs. 1 to 3) then reads the word and the gated context; the deep output (eq. 7) joins
        word, state and context, with a tanh before the last layer as in the authors' code.
        """
        word = self.dropout(self.embedding(words))  # (N, E)
        attended = self.attention(state.hidden, memory.keys, memory.annotations)
        beta = torch.sigmoid(self.gate(state.hidden))  # (N, 1)
        context = beta * attended.context  # (N, D)
        hidden, cell = self.lstm(torch.cat((word, context), dim=1), state)  # (N, H) each
        joined = word + self.state_to_output(hidden) + self.context_to_output(context)  # (N, E)
        logits = self.output(self.dropout(torch.tanh(joined)))  # (N, V)
        return DecoderStep(logits, attended.alpha, beta, DecoderState(hidden, cell))
