"""The recurrent network that writes a caption: one step of it, which training and search share.

Equations are those of Xu et al. 2015, "Show, Attend and Tell" (arXiv 1502.03044v3). Symbols:

    in code        paper   meaning
    annotations    a_i     feature grid, flattened row by row               (N, L, D)
    look.alpha     α_ti    attention weights                                (N, L)
    context        ẑ_t     what was looked at, gated                        (N, D)
    look.beta      β_t     gate on the context                              (N,)
    hidden, cell   h, c    recurrent state                                  (N, H)
    logits         p(y_t)  scores of the next word, before softmax          (N, V)

N rows: one a caption in training, one a hypothesis in search. E embedding, A attention.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import Look, Memory, Query, Sizes, build_attention
from model.attention.interface import mean_annotation
from model.config import ModelConfig
from model.evidence import Evidence, EvidenceGate
from model.recurrent import RECURRENT_CELLS


class DecoderState(NamedTuple):
    """What the decoder remembers between words."""

    hidden: Tensor  # (N, H)
    cell: Tensor  # (N, H)
    position: int  # words written so far

    def select(self, rows: Tensor | slice) -> DecoderState:
        """The state of some of the rows, in the order given."""
        return DecoderState(self.hidden[rows], self.cell[rows], self.position)


class DecoderStep(NamedTuple):
    """What one step gives."""

    logits: Tensor  # (N, V)
    look: Look  # of N rows
    state: DecoderState


class Decoder(nn.Module):
    """Recurrent cell with attention, gate and deep output. Keeps no state of its own."""

    gate: nn.Linear | None

    def __init__(self, config: ModelConfig, rows: int, columns: int) -> None:
        """``rows`` and ``columns``: of the grid it will attend to."""
        super().__init__()
        d, e, h = config.annotation_dim, config.embedding_dim, config.hidden_dim
        self.embedding = nn.Embedding(config.vocabulary_size, e)
        self.word_in_query = config.query == "state_and_word"
        query_dim = h + e if self.word_in_query else h
        sizes = Sizes(
            annotation=d,
            query=query_dim,
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

    def remember(
        self,
        annotations: Tensor,
        *,
        mask: Tensor | None = None,
        draw_seed: int | None = None,
        evidence: Tensor | None = None,
    ) -> Memory:
        """Annotations (N, L, D) with what the attention prepares of them, once for all words.

        Args:
            mask: (N, L), true where a location may be looked at, at least one a row; None: everywhere.
            draw_seed: of what a kind of attention draws while captioning; None: it draws nothing.
            evidence: (N, V), for and against each word; None: there is none.
        """
        memory = Memory(annotations, self.attention.prepare(annotations, mask), mask, draw_seed)
        if self.evidence_gate is None or evidence is None:
            return memory
        image = self.evidence_gate.image(mean_annotation(annotations, mask))
        return memory._replace(evidence=Evidence(evidence, image))

    def initial_state(self, memory: Memory) -> DecoderState:
        """The state before the first word, made of the mean annotation (section 3.1.2)."""
        hidden, cell = self.recurrent.start(mean_annotation(memory.annotations, memory.mask))
        return DecoderState(hidden, cell, position=0)

    def step(self, words: Tensor, state: DecoderState, memory: Memory) -> DecoderStep:
        """One word on: from the previous words' ids (N,) to the scores of the next.

        Attention (eqs. 4 and 5) and gate (section 4.2.1) see the state before the word, h_(t-1), attention
        the word too where ``query`` says so; the recurrent cell (eqs. 1 to 3) then reads the word and the
        gated context; the deep output (eq. 7) joins word, state and context, with a tanh before the last
        layer as in the authors' code. What the image says of each word by itself comes last.
        """
        word = self.dropout(self.embedding(words))  # (N, E)
        vector = torch.cat((state.hidden, word), dim=1) if self.word_in_query else state.hidden
        attended = self.attention(Query(vector, state.hidden, state.cell, word, state.position), memory)
        context, beta = self._gated(attended.context, state.hidden)
        hidden, cell = self.recurrent(torch.cat((word, context), dim=1), (state.hidden, state.cell))
        joined = word + self.state_to_output(hidden) + self.context_to_output(context)  # (N, E)
        logits = self.output(self.dropout(torch.tanh(joined)))  # (N, V)
        if self.evidence_gate is not None and memory.evidence is not None:
            logits = logits + self.evidence_gate(hidden, memory.evidence) * memory.evidence.words
        after = DecoderState(hidden, cell, state.position + 1)
        return DecoderStep(logits, attended.look._replace(beta=beta), after)

    def _gated(self, context: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """The context (N, D) through its gate, and how open that was, (N,)."""
        if self.gate is None:
            return context, None
        gate = torch.sigmoid(self.gate(hidden))  # (N, 1), or (N, D)
        return gate * context, gate.mean(dim=1)
