"""Attention to one location per word: the stochastic "hard" attention of Xu et al. 2015, section 4.1."""

import torch
from torch import Tensor

from model.attention.interface import AttentionMaps, Memory, Query, attention_kind, weighted_sum
from model.attention.soft import AdditiveAttention

EXPECTATION_SHARE = 0.5  # of the rows of a training batch that use the expectation (Xu et al., 4.1)


@attention_kind("hard")
class HardAttention(AdditiveAttention):
    """s_t ~ alpha_t, z_t = a_(s_t) (eqs. 8 and 9), with the scores of additive attention.

    Training samples the location for half of the rows and uses the expectation for the others, so the
    weights learn by REINFORCE (``training.engine.losses``) and by gradient. Captioning uses the most likely
    location, or samples it given a ``draw_seed``. The noise depends only on the seed and the position of the
    word, so captions are batch-invariant.
    """

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        """The keys, (N, L, A), and which rows use the expectation, (N,)."""
        takes_expectation = annotations.new_zeros(len(annotations), dtype=torch.bool)
        if self.training:
            takes_expectation = torch.rand(len(annotations), device=annotations.device) < EXPECTATION_SHARE
        return *super().prepare(annotations), takes_expectation

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
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
        # The largest of the log-weights with Gumbel noise is a sample from the weights (Gumbel 1954).
        seed = (memory.draw_seed * 1_000_003 + query.position) % 2**63
        generator = torch.Generator().manual_seed(seed)
        noise = -torch.empty(alpha.shape[1]).exponential_(generator=generator).log()  # (L,)
        return (alpha.log() + noise.to(alpha.device)).argmax(dim=1)
