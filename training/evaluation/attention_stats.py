"""Statistics of attention maps: how focused they are, and how much they change between words."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from model import Caption

# Below this distance between successive maps, attention counts as constant. Maps that learn are ten times
# as far apart after the first epoch.
MIN_STEP_DISTANCE = 0.01


def describe_attention(captions: Sequence[Caption]) -> dict[str, float] | None:
    """Statistics of the words' attention maps, or None without maps.

    Returns:
        ``entropy``: mean entropy of a word's map, as a fraction of that of a uniform map (0: one cell, 1:
        uniform). ``step_distance``: mean total variation distance between the maps of successive words (0:
        the same map, 1: disjoint). ``uniform_distance``: the same between a word's map and a uniform map.
    """
    entropies, steps, uniform = [], [], []
    for caption in captions:
        maps = [
            [weight for row in word.attention for weight in row] for word in caption.words if word.attention
        ]
        for weights in maps:
            # The only map on a grid of one cell counts as uniform.
            entropies.append(_entropy(weights) / math.log(len(weights)) if len(weights) > 1 else 1.0)
            uniform.append(_distance(weights, [1 / len(weights)] * len(weights)))
        steps += [_distance(before, after) for before, after in pairwise(maps)]
    if not entropies:
        return None
    return {
        "entropy": round(fmean(entropies), 4),
        "step_distance": round(fmean(steps or [0.0]), 4),
        "uniform_distance": round(fmean(uniform), 4),
    }


def is_constant(attention: dict[str, float] | None) -> bool:
    """Whether maps barely change between words, by the statistics of ``describe_attention``."""
    return attention is not None and attention["step_distance"] < MIN_STEP_DISTANCE


def _entropy(weights: Sequence[float]) -> float:
    """In nats."""
    return -sum(weight * math.log(weight) for weight in weights if weight > 0)


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Total variation distance, 0 to 1."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2
