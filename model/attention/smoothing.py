"""Scores that a location shares with its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention.interface import Sizes

KERNEL = (0.25, 0.5, 0.25)  # binomial: applied n times it is nearly a Gaussian of sigma sqrt(n / 2) cells


class ScoreSmoothing(nn.Module):
    """e'_i = sum_j k_ij e_j over the grid, before the softmax; at the border over the cells there are.

    The things on a photo are larger than the cells of a fine grid, but every cell is scored for itself,
    and the highest score is often a lone one beside the thing. ``sizes.score_blur`` is how many times scores
    are averaged with those of the eight cells around; 0 leaves them as they are.
    """

    kernel: Tensor | None  # (L, L), row i of what location i takes from every other

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        kernel = torch.kron(*(_along(side, sizes.score_blur) for side in (sizes.rows, sizes.columns)))
        self.register_buffer("kernel", kernel if sizes.score_blur else None, persistent=False)

    def forward(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Scores (..., L), blurred over the locations where ``mask``, which broadcasts, is true; float32."""
        scores = scores.float()
        if self.kernel is None:
            return scores
        with torch.autocast(scores.device.type, enabled=False):  # a bfloat16 score is off by a hundredth
            if mask is None:
                return scores @ self.kernel.T
            there = mask.to(scores.dtype)
            reached = (there @ self.kernel.T).clamp_min(torch.finfo(scores.dtype).tiny)
            return (scores * there) @ self.kernel.T / reached


def _along(cells: int, times: int) -> Tensor:
    """What every cell of a row takes from each of the row, (cells, cells); rows sum to 1."""
    before, own, after = (
        torch.diag(torch.full((max(0, cells - abs(shift)),), share), shift)
        for shift, share in zip((-1, 0, 1), KERNEL, strict=True)
    )
    once = before + own + after
    many: Tensor = torch.linalg.matrix_power(once / once.sum(dim=1, keepdim=True), times)
    return many
