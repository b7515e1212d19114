"""Attention to one location a word: the stochastic "hard" attention of Xu et al. 2015, section 4.1."""

from __future__ import annotations

import torch
from torch import Tensor

from model.attention.interface import AttentionMaps, Memory, Query, attention_kind, weighted_sum
from model.attention.soft import AdditiveAttention

EXPECTATION_SHARE = 0.5  # of the photos of a training batch that get the expectation (Xu et al., 4.1)


@attention_kind("hard")
class HardAttention(AdditiveAttention):
    """s_t ~ alpha_t, z_t = a_(s_t) (eqs. 8 and 9), with the scores of additive attention.

    Training draws the location for half of the photos and takes the expectation for the others, so the
    weights learn by REINFORCE (``training.engine.losses``) and by gradient. Captioning takes the heaviest
    location, or with a ``draw_seed`` draws it. The noise of a draw depends on the seed and on the
    word's place in the caption alone, so that a photo is captioned alone as in any company.
    """

    def prepare(self, annotations: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """The keys, (N, L, A), and which rows take the expectation, (N,)."""
        takes_expectation = annotations.new_zeros(len(annotations), dtype=torch.bool)
        if self.training:
            takes_expectation = torch.rand(len(annotations), device=annotations.device) < EXPECTATION_SHARE
        return *super().prepare(annotations, mask), takes_expectation

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        """The context vector, (N, D), and the map."""
        alpha = self.weights(query, memory)
        chosen = self._choose(alpha.detach(), query, memory)  # (N,)
        context = memory.annotations[torch.arange(len(chosen), device=chosen.device), chosen]  # (N, D)
        takes_expectation = memory.prepared[1]
        expected = weighted_sum(alpha, memory.annotations)
        maps = AttentionMaps(alpha, chosen=chosen.masked_fill(takes_expectation, -1))
        return torch.where(takes_expectation.unsqueeze(1), expected, context), maps

    def _choose(self, alpha: Tensor, query: Query, memory: Memory) -> Tensor:
        if self.training:
            return torch.multinomial(alpha, 1).squeeze(1)
        if memory.draw_seed is None:
            return alpha.argmax(dim=1)
        # The largest of the log-weights with Gumbel noise is a draw from the weights (Gumbel 1954).
        seed = (memory.draw_seed * 1_000_003 + query.position) % 2**63
        generator = torch.Generator().manual_seed(seed)
        noise = -torch.empty(alpha.shape[1]).exponential_(generator=generator).log()  # (L,)
        return (alpha.log() + noise.to(alpha.device)).argmax(dim=1)
