"""describe_attention: entropy and distances of maps, by hand-computed examples."""

import math
from dataclasses import replace

import pytest

from model import Caption, Grid, Word
from training.evaluation.attention_stats import describe_attention, is_constant


def caption_with(*maps: tuple[tuple[float, ...], ...]) -> Caption:
    words = tuple(Word(word="dog", log_prob=-1.0, beta=0.5, attention=attention) for attention in maps)
    grid = Grid(rows=len(maps[0]), columns=len(maps[0][0]), box=(0.0, 0.0, 1.0, 1.0))
    return Caption(text="dog " * len(maps), log_prob=-1.0, words=words, grid=grid, is_finished=True)


UNIFORM = ((0.25, 0.25), (0.25, 0.25))
ONE_HOT = [((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (1.0, 0.0)), ((0.0, 1.0), (0.0, 0.0))]


def test_uniform_maps_have_maximal_entropy():
    found = describe_attention([caption_with(UNIFORM, UNIFORM, UNIFORM)])
    assert found == {"entropy": pytest.approx(1), "step_distance": 0, "uniform_distance": 0}


def test_moving_one_hot_maps_have_no_entropy_or_overlap():
    found = describe_attention([caption_with(*ONE_HOT)])
    assert found == {"entropy": 0, "step_distance": 1, "uniform_distance": 0.75}


def test_attention_stats_without_maps_are_empty():
    words = (Word(word="dog", log_prob=-1.0, beta=None, attention=None),)
    caption = replace(caption_with(UNIFORM), words=words)
    assert describe_attention([caption]) is None
    assert not is_constant(None)


def test_nearly_equal_maps_are_constant():
    nearly = ((0.251, 0.249), (0.25, 0.25))
    assert is_constant(describe_attention([caption_with(UNIFORM, nearly, UNIFORM)]))
    assert not is_constant(describe_attention([caption_with(*ONE_HOT)]))


def test_attention_stats_are_means_over_words_and_steps():
    half = ((0.5, 0.5), (0.0, 0.0))
    found = describe_attention([caption_with(UNIFORM, half), caption_with(ONE_HOT[0])])
    assert found["entropy"] == pytest.approx((1 + math.log(2) / math.log(4) + 0) / 3, abs=1e-4)
    assert found["step_distance"] == pytest.approx(0.5, abs=1e-4)


def test_attention_steps_do_not_cross_captions():
    found = describe_attention([caption_with(ONE_HOT[0]), caption_with(ONE_HOT[1])])
    assert found["step_distance"] == 0


def test_attention_stats_of_one_cell():
    found = describe_attention([caption_with(((1.0,),), ((1.0,),))])
    assert found["step_distance"] == 0
