"""Smoothing of attention scores over neighbouring cells."""

import pytest
import torch
from support import attention_kinds as small
from support.attention_kinds import COLUMNS, ROWS
from torch import nn

from model.attention import Sizes, build_attention
from model.attention.smoothing import ScoreSmoothing

L = ROWS * COLUMNS
SCORED = sorted({"additive", "additive_sum", "location", "dot", "general", "scaled_dot", "multi_head"})
WINDOWED = ["local_m", "local_p"]


def blur(times: int, rows: int = ROWS, columns: int = COLUMNS) -> ScoreSmoothing:
    return ScoreSmoothing(Sizes(1, 1, 1, 1, 1, 1, rows, columns, score_blur=times))


def random_scores(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, L, generator=torch.Generator().manual_seed(5))


def test_no_smoothing_is_identity() -> None:
    assert torch.equal(blur(0)(random_scores()), random_scores())


@pytest.mark.parametrize("times", [1, 2, 5])
def test_equal_scores_stay_equal(times: int) -> None:
    torch.testing.assert_close(blur(times)(torch.full((2, L), 3.0)), torch.full((2, L), 3.0))


@pytest.mark.parametrize("times", [1, 2])
def test_smoothing_is_binomial_convolution_inside(times: int) -> None:
    rows, columns = 9, 8
    scores = torch.randn(2, rows * columns, generator=torch.Generator().manual_seed(6))
    one = torch.tensor([1.0, 2.0, 1.0]) / 4
    expected = scores.view(2, 1, rows, columns)
    for _ in range(times):
        expected = nn.functional.conv2d(expected, torch.outer(one, one)[None, None], padding=1)
    found = blur(times, rows, columns)(scores).view(2, rows, columns)
    inside = (slice(None), slice(times, rows - times), slice(times, columns - times))
    torch.testing.assert_close(found[inside], expected[:, 0][inside])


def test_smoothing_is_float32_under_autocast() -> None:
    scores, twice = 10 * random_scores(), blur(2)
    with torch.autocast("cpu", torch.bfloat16):
        found = twice(scores)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, twice(scores))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (2, 3)])
def test_grids_smaller_than_kernel_are_smoothed(rows: int, columns: int) -> None:
    scores = torch.arange(float(rows * columns))[None]
    found = blur(2, rows, columns)(scores)
    assert found.min() >= scores.min()
    assert found.max() <= scores.max()


def maps_of(kind: str, times: int):
    sizes = small.sizes_for(kind)._replace(score_blur=times)
    torch.manual_seed(3)
    attention = build_attention(kind, sizes).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.mul_(4)
        memory = small.prepare(attention, small.make_annotations(kind))
        return small.attend(attention, small.make_query(), memory).maps


def roughness(alpha: torch.Tensor) -> float:
    """How much the logarithms of neighbouring weights differ."""
    grid = alpha.clamp_min(1e-30).log().view(len(alpha), ROWS, COLUMNS)
    return float(grid.diff(dim=1).abs().mean() + grid.diff(dim=2).abs().mean())


@pytest.mark.parametrize("kind", [*SCORED, "sentinel", "hard"])
def test_smoothed_maps_are_smoother_and_sum_to_one(kind: str) -> None:
    rough, smooth = maps_of(kind, 0).alpha, maps_of(kind, 2).alpha
    torch.testing.assert_close(smooth.sum(1), torch.ones(len(smooth)))
    assert roughness(smooth) < 0.8 * roughness(rough)


@pytest.mark.parametrize("kind", WINDOWED)
def test_smoothing_keeps_window_edge(kind: str) -> None:
    rough, smooth = maps_of(kind, 0).alpha, maps_of(kind, 2).alpha
    assert torch.equal(rough == 0, smooth == 0)
    torch.testing.assert_close(smooth.sum(1), torch.ones(len(smooth)))
    assert not torch.allclose(rough, smooth)
