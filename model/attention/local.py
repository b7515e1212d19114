"""Attention through a window on the grid: Luong et al. 2015 (arXiv 1508.04025), section 3.2, in two
dimensions.

Their window of 2 D + 1 words becomes one of (2 D_r + 1) x (2 D_c + 1) cells, D a quarter of the grid's
side. The Gaussian with sigma = D / 2 is added to the scores before the softmax, where they multiply after it,
so the weights still sum to 1.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from model.attention.interface import Memory, Query, Sizes, attention_kind
from model.attention.soft import GeneralAttention

# Positions of the window of ``local_m``, down and across, in one sweep over the image, one per word: close
# enough for windows of a quarter of the grid to cover everything, and about as many as a caption has words.
STOPS = (3, 4)
OUTSIDE = -1e4  # added to the scores outside the window: enough for a weight of exactly 0


class LocalAttention(GeneralAttention):
    """e_ti = q_t . W a_i - (r_i - p_r)^2 / 2 sigma_r^2 - (c_i - p_c)^2 / 2 sigma_c^2 within the window."""

    locations: Tensor  # (L, 2), row and column of every location
    reach: Tensor  # (2,), of the window up and down, left and right, in cells

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        rows, columns = torch.arange(sizes.rows), torch.arange(sizes.columns)
        reach = torch.tensor([max(1.0, round(side / 4)) for side in (sizes.rows, sizes.columns)])  # (2,)
        self.register_buffer("locations", torch.cartesian_prod(rows, columns).float(), persistent=False)
        self.register_buffer("reach", reach, persistent=False)

    @abstractmethod
    def centre(self, query: Query) -> Tensor:
        """Row and column of the window's centre, (N, 2) or (1, 2), in cells from the first."""

    def weights(self, query: Query, memory: Memory) -> Tensor:
        """alpha_t, (N, L): 0 outside the window."""
        distance = (self.locations - self.centre(query).float().unsqueeze(1)) / self.reach  # (N, L, 2)
        gaussian = -2 * distance.square().sum(dim=2)  # sigma is half the reach
        outside = (distance.abs() > 1).any(dim=2) * OUTSIDE
        scores: Tensor = self.smooth(self.scores(query, memory))
        return (scores + gaussian + outside).softmax(dim=1)


@attention_kind("local_m")
class MonotonicLocalAttention(LocalAttention):
    """The centre advances with every word, in reading order: Luong's local-m. It is not learnt."""

    def centre(self, query: Query) -> Tensor:
        """(1, 2): the middle of part t of the grid cut into ``STOPS`` equal parts; then it starts over."""
        down, across = STOPS
        row, column = divmod(query.position % (down * across), across)
        sides = self.locations[-1] + 1  # rows and columns
        share = sides.new_tensor([(row + 0.5) / down, (column + 0.5) / across])
        return (share * sides - 0.5).unsqueeze(0)


@attention_kind("local_p")
class PredictiveLocalAttention(LocalAttention):
    """p_t = (rows - 1, columns - 1) * sigmoid(V tanh(W q_t)): Luong's local-p, eq. 9, for both sides."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.centre_layer = nn.Sequential(
            nn.Linear(sizes.query, sizes.attention), nn.Tanh(), nn.Linear(sizes.attention, 2)
        )

    def centre(self, query: Query) -> Tensor:
        return torch.sigmoid(self.centre_layer(query.vector).float()) * self.locations[-1]
