"""Attention that may leave the image: the visual sentinel of Lu et al. 2017 (arXiv 1612.01887)."""

import torch
from torch import Tensor, nn

from model.attention.interface import (
    AttentionMaps,
    Memory,
    Query,
    Sizes,
    attention_kind,
    weighted_sum,
)
from model.attention.soft import AdditiveAttention


@attention_kind("sentinel")
class SentinelAttention(AdditiveAttention):
    """One location more than the grid has: s_t, what the decoder already knows.

    s_t = sigmoid(W_x E y_(t-1) + W_h h_(t-1)) * tanh(m_(t-1))                        (eqs. 9 and 10)
    alpha^_t = softmax([e_t1 .. e_tL; v . tanh(W_s s_t + W_q q_t)])               (eq. 12)
    z_t = beta_t V s_t + (1 - beta_t) sum_i alpha_ti a_i, beta_t = alpha^_t(L+1)      (eqs. 11 and 13)

    As in Xu et al. the decoder attends before it reads the previous word into its state, so h and m are
    those of the previous step; V projects the sentinel to the dimension of an annotation. ``alpha`` is the
    map over the image alone, summing to 1; ``sentinel`` is beta_t.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.word_gate = nn.Linear(sizes.embedding, sizes.hidden, bias=False)
        self.state_gate = nn.Linear(sizes.hidden, sizes.hidden)
        self.sentinel_key = nn.Linear(sizes.hidden, sizes.attention)
        self.sentinel_value = nn.Linear(sizes.hidden, sizes.annotation)

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        gate = torch.sigmoid(self.word_gate(query.word) + self.state_gate(query.hidden))
        sentinel = gate * torch.tanh(query.cell)  # (N, H)
        scores = self.smooth(self.scores(query, memory))  # (N, L)
        own = self.compare(query, self.sentinel_key(sentinel).unsqueeze(1))  # (N, 1)
        everything = torch.cat((scores, own.float()), dim=1).softmax(dim=1)  # (N, L + 1)
        beta = everything[:, -1:]  # (N, 1)
        context = beta * self.sentinel_value(sentinel) + weighted_sum(everything[:, :-1], memory.annotations)
        return context, AttentionMaps(scores.softmax(dim=1), sentinel=beta.squeeze(1))
