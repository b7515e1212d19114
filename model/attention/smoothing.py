"""Smoothing of attention scores over the grid."""

import torch
from torch import Tensor, nn

from model.attention.interface import Sizes

KERNEL = (0.25, 0.5, 0.25)  # binomial: n passes approximate a Gaussian of sigma sqrt(n / 2) cells


class ScoreSmoothing(nn.Module):
    """e'_i = sum_j k_ij e_j over the grid, before the softmax; at the border over the existing cells.

    Objects are larger than the cells of a fine grid, but each cell is scored on its own, and the highest
    score is often an outlier beside the object. ``sizes.score_blur`` is the number of passes, each averaging
    the scores of the eight neighbours; 0 disables smoothing.
    """

    kernel: Tensor | None  # (L, L), row i holds the weights of location i

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        kernel = torch.kron(*(_along(side, sizes.score_blur) for side in (sizes.rows, sizes.columns)))
        self.register_buffer("kernel", kernel if sizes.score_blur else None, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (..., L), smoothed; float32 even under mixed precision."""
        scores = scores.float()
        if self.kernel is None:
            return scores
        with torch.autocast(scores.device.type, enabled=False):  # a bfloat16 score is off by a hundredth
            return scores @ self.kernel.T


def _along(cells: int, times: int) -> Tensor:
    """The kernel along one side of the grid, (cells, cells); rows sum to 1."""
    before, own, after = (
        torch.diag(torch.full((max(0, cells - abs(shift)),), share), shift)
        for shift, share in zip((-1, 0, 1), KERNEL, strict=True)
    )
    once = before + own + after
    many: Tensor = torch.linalg.matrix_power(once / once.sum(dim=1, keepdim=True), times)
    return many
