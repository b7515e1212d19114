"""The decoder: recurrent cell, attention, gate and output layer. Training and search share its one step.

Equations are those of Xu et al. 2015, "Show, Attend and Tell" (arXiv 1502.03044v3). Symbols:

    in code        paper   meaning
    annotations    a_i     feature grid, flattened row by row               (N, L, D)
    maps.alpha     α_ti    attention weights                                (N, L)
    context        ẑ_t     context vector, gated                            (N, D)
    maps.beta      β_t     gate on the context                              (N,)
    hidden, cell   h, c    recurrent state                                  (N, H)
    logits         p(y_t)  scores of the next word, before softmax          (N, V)

N rows: one per caption in training, one per hypothesis in search. E embedding, A attention.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from model.attention import AttentionMaps, Memory, Query, Sizes, build_attention
from model.config import ModelConfig
from model.evidence import Evidence, EvidenceGate

States = tuple[Tensor, Tensor]  # hidden and cell, (N, H) each


class RecurrentCell(Protocol):
    """What the decoder needs of its recurrent cell."""

    def start(self, mean: Tensor) -> States:
        """The state before the first word, from the mean annotation (N, D)."""

    def __call__(self, x: Tensor, state: States) -> States:
        """The state after the input (N, input_dim)."""


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
        hidden, cell = self.cell(x, state)
        return hidden, cell


class GRU(nn.Module):
    """Gated recurrent unit: Cho et al. 2014 (arXiv 1406.1078). Its state is h_t, which stands for both."""

    def __init__(self, input_dim: int, hidden_dim: int, start_dim: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(input_dim, hidden_dim)
        self.initial_hidden = nn.Linear(start_dim, hidden_dim)

    def start(self, mean: Tensor) -> States:
        """h_0, a one-layer perceptron of the mean annotation (N, D)."""
        hidden = torch.tanh(self.initial_hidden(mean))
        return hidden, hidden

    def forward(self, x: Tensor, state: States) -> States:
        hidden = self.cell(x, state[0])
        return hidden, hidden


RECURRENT_CELLS: dict[str, Callable[[int, int, int], RecurrentCell]] = {"lstm": LSTM, "gru": GRU}


class DecoderState(NamedTuple):
    """The decoder's state between words."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)
    position: int  # words so far

    def select(self, rows: Tensor | slice) -> Self:
        """The state of some of the rows, in the order given."""
        return self._replace(hidden=self.hidden[rows], cell=self.cell[rows])


class StepOutput(NamedTuple):
    """The output of one decoder step."""

    logits: Tensor  # (N, V)
    maps: AttentionMaps  # of N rows
    state: DecoderState


# One step of decoding: from the previous words' ids (N,), the state and the memory.
Step = Callable[[Tensor, DecoderState, Memory], StepOutput]


class Decoder(nn.Module):
    """Recurrent cell with attention, gate and deep output. Stores no state between calls."""

    def __init__(self, config: ModelConfig, rows: int, columns: int) -> None:
        """``rows`` and ``columns``: of the grid it attends to."""
        super().__init__()
        d, e, h = config.annotation_dim, config.embedding_dim, config.hidden_dim
        self.embedding = nn.Embedding(config.vocabulary_size, e)
        self.word_in_query = config.query == "state_and_word"
        sizes = Sizes(
            annotation=d,
            query=h + e if self.word_in_query else h,
            hidden=h,
            embedding=e,
            attention=config.attention_dim,
            heads=config.attention_heads,
            rows=rows,
            columns=columns,
            score_blur=config.score_blur,
        )
        self.attention = build_attention(config.attention, sizes)
        gate_width = {"scalar": 1, "vector": d, "off": 0}[config.gate]
        self.gate = nn.Linear(h, gate_width) if gate_width else None
        self.recurrent = RECURRENT_CELLS[config.cell](e + d, h, d)
        self.state_to_output = nn.Linear(h, e)
        self.context_to_output = nn.Linear(d, e, bias=False)
        self.output = nn.Linear(e, config.vocabulary_size)
        self.evidence_gate = EvidenceGate(h, d) if config.evidence else None
        self.dropout = nn.Dropout(config.dropout)

    def prepare(self, annotations: Tensor, *, evidence: Tensor | None = None) -> Memory:
        """Annotations (N, L, D) with what the attention computes from them once, for all words.

        ``evidence``: (N, V), of every word; None: of a network without.
        """
        memory = Memory(annotations, self.attention.prepare(annotations), draw_seed=None)
        if self.evidence_gate is None or evidence is None:
            return memory
        image = self.evidence_gate.image(annotations.mean(dim=1))
        return memory._replace(evidence=Evidence(evidence, image))

    def initial_state(self, memory: Memory) -> DecoderState:
        """The state before the first word, from the mean annotation (section 3.1.2)."""
        hidden, cell = self.recurrent.start(memory.annotations.mean(dim=1))
        return DecoderState(hidden, cell, position=0)

    def step(self, words: Tensor, state: DecoderState, memory: Memory) -> StepOutput:
        """One step: from the previous words' ids (N,) to the logits of the next.

        Attention (eqs. 4 and 5) and gate (section 4.2.1) use the state before the word, h_(t-1), attention
        the word too if ``query`` says so; the recurrent cell (eqs. 1 to 3) then reads the word and the
        gated context; the deep output (eq. 7) sums word, state and context, with a tanh before the last
        layer as in the authors' code. The image's evidence of words is added to the logits.
        """
        word = self.dropout(self.embedding(words))  # (N, E)
        vector = torch.cat((state.hidden, word), dim=1) if self.word_in_query else state.hidden
        query = Query(vector, state.hidden, state.cell, word, state.position)
        attended, maps = self.attention(query, memory)
        context, beta = self._gated(attended, state.hidden)
        hidden, cell = self.recurrent(torch.cat((word, context), dim=1), (state.hidden, state.cell))
        joined = word + self.state_to_output(hidden) + self.context_to_output(context)  # (N, E)
        logits = self.output(self.dropout(torch.tanh(joined)))  # (N, V)
        if self.evidence_gate is not None and memory.evidence is not None:
            logits = logits + self.evidence_gate(hidden, memory.evidence)
        return StepOutput(logits, maps._replace(beta=beta), DecoderState(hidden, cell, state.position + 1))

    def _gated(self, context: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gated context (N, D) and the mean of its gate, (N,)."""
        if self.gate is None:
            return context, None
        gate = torch.sigmoid(self.gate(hidden))  # (N, 1), or (N, D)
        return gate * context, gate.mean(dim=1)
