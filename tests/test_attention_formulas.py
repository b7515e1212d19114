"""Every kind of attention against a second implementation of its formula.

Written from the papers in NumPy and double precision, one photo and one query at a time, without any code of
the network.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import attention_kinds as small
from support.attention_kinds import COLUMNS, KINDS, ROWS, L, M, N

Array = NDArray[np.float64]
Weights = dict[str, Array]
Seen = tuple[Array | None, Array]  # weights (L,), context (D,)


class Question:
    """A query, its photo and the cells that may be attended to, as arrays."""

    def __init__(self, row: int, query: str, annotations: torch.Tensor) -> None:
        asked = small.make_query(query)
        self.q, self.h, self.m, self.y = (tensor[row].double().numpy() for tensor in asked[:4])
        self.t = asked.position
        self.a = annotations[row].double().numpy()
        self.cells = range(L)


def linear(weights: Weights, name: str, x: Array) -> Array:
    return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def normalized(exponentials: dict[int, float]) -> Array:
    """Weights (L,) in proportion to what every cell has; 0 where it has nothing."""
    alpha = np.zeros(L)
    for cell, value in exponentials.items():
        alpha[cell] = value / sum(exponentials.values())
    return alpha


def softmax(score: Callable[[int], float], cells: range | list[int]) -> Array:
    return normalized({cell: math.exp(score(cell)) for cell in cells})


def expected(alpha: Array, a: Array) -> Array:
    context = np.zeros(a.shape[1])
    for weight, annotation in zip(alpha, a, strict=True):
        context += weight * annotation
    return context


def none(w: Weights, x: Question) -> Seen:
    return None, linear(w, "context_layer", np.mean([x.a[cell] for cell in x.cells], axis=0))


def uniform(w: Weights, x: Question) -> Seen:
    alpha = normalized(dict.fromkeys(x.cells, 1.0))
    return alpha, expected(alpha, x.a)


def additive_score(w: Weights, x: Question, key: Array) -> float:
    return w["energy_layer.weight"][0] @ np.tanh(linear(w, "query_layer", x.q) + key)


def additive(w: Weights, x: Question) -> Seen:
    alpha = softmax(lambda i: additive_score(w, x, linear(w, "key_layer", x.a[i])), x.cells)
    return alpha, expected(alpha, x.a)


def additive_sum(w: Weights, x: Question) -> Seen:
    """The second classic rule: the sum of tanh(Linear([q; a]))."""
    both = np.concatenate((w["query_layer.weight"], w["key_layer.weight"]), axis=1)
    bias = w["key_layer.bias"]
    alpha = softmax(lambda i: np.tanh(both @ np.concatenate((x.q, x.a[i])) + bias).sum(), x.cells)
    return alpha, expected(alpha, x.a)


def location(w: Weights, x: Question) -> Seen:
    scores = linear(w, "score_layer", np.concatenate((x.y, x.h)))
    alpha = softmax(lambda i: scores[i], x.cells)
    return alpha, expected(alpha, x.a)


def dot(w: Weights, x: Question) -> Seen:
    alpha = softmax(lambda i: x.q @ x.a[i], x.cells)
    return alpha, expected(alpha, x.a)


def general(w: Weights, x: Question) -> Seen:
    alpha = softmax(lambda i: x.q @ w["key_layer.weight"] @ x.a[i], x.cells)
    return alpha, expected(alpha, x.a)


def scaled_dot(w: Weights, x: Question) -> Seen:
    query = linear(w, "query_layer", x.q)
    alpha = softmax(lambda i: query @ linear(w, "key_layer", x.a[i]) / math.sqrt(len(query)), x.cells)
    return alpha, sum(alpha[i] * linear(w, "value_layer", x.a[i]) for i in x.cells)


def multi_head(w: Weights, x: Question) -> Seen:
    """Vaswani et al., 3.2.2: every head has its own rows of the query, key and value maps."""
    alphas, heads = [], []
    for rows in np.split(np.arange(small.A), M):
        own = {name: value[rows] for name, value in w.items() if not name.startswith("output")}
        alpha, head = scaled_dot(own, x)
        alphas.append(alpha)
        heads.append(head)
    return np.mean(alphas, axis=0), linear(w, "output_layer", np.concatenate(heads))


def windowed(w: Weights, x: Question, centre: tuple[float, float]) -> Seen:
    """Luong et al., eq. 10 for both sides: scores in a window times a Gaussian, made to sum to one."""
    exponentials = {}
    for i in x.cells:
        weight = math.exp(x.q @ w["key_layer.weight"] @ x.a[i])
        is_inside = True
        for position, middle, side in zip(divmod(i, COLUMNS), centre, (ROWS, COLUMNS), strict=True):
            reach = max(1, round(side / 4))
            sigma = reach / 2
            weight *= math.exp(-((position - middle) ** 2) / (2 * sigma**2))
            is_inside &= abs(position - middle) <= reach
        if is_inside:
            exponentials[i] = weight
    alpha = normalized(exponentials)
    return alpha, expected(alpha, x.a)


def local_m(w: Weights, x: Question) -> Seen:
    """The grid is cut into three by four parts, whose middles are visited in reading order."""
    middles = [
        ((i + 0.5) * ROWS / 3 - 0.5, (j + 0.5) * COLUMNS / 4 - 0.5) for i in range(3) for j in range(4)
    ]
    return windowed(w, x, middles[x.t % 12])


def local_p(w: Weights, x: Question) -> Seen:
    """Luong et al., eq. 9: the last row and the last column are what S is in a sentence."""
    share = sigmoid(linear(w, "centre_layer.2", np.tanh(linear(w, "centre_layer.0", x.q))))
    return windowed(w, x, ((ROWS - 1) * share[0], (COLUMNS - 1) * share[1]))


def sentinel(w: Weights, x: Question) -> Seen:
    """Lu et al., eqs. 9 to 13."""
    s = sigmoid(linear(w, "word_gate", x.y) + linear(w, "state_gate", x.h)) * np.tanh(x.m)
    exponentials = {i: math.exp(additive_score(w, x, linear(w, "key_layer", x.a[i]))) for i in x.cells}
    own = math.exp(additive_score(w, x, linear(w, "sentinel_key", s)))
    beta = own / (own + sum(exponentials.values()))
    alpha = normalized(exponentials)
    return alpha, beta * linear(w, "sentinel_value", s) + (1 - beta) * expected(alpha, x.a)


def hard(w: Weights, x: Question) -> Seen:
    """Captioning: the annotation of the heaviest cell."""
    alpha, _ = additive(w, x)
    return alpha, x.a[max(x.cells, key=lambda i: alpha[i])]


FORMULAS: dict[str, Callable[[Weights, Question], Seen]] = {
    "none": none,
    "uniform": uniform,
    "additive": additive,
    "additive_sum": additive_sum,
    "location": location,
    "dot": dot,
    "general": general,
    "scaled_dot": scaled_dot,
    "multi_head": multi_head,
    "local_m": local_m,
    "local_p": local_p,
    "sentinel": sentinel,
    "hard": hard,
}


@pytest.mark.parametrize("query", ["state", "state_and_word"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_equals_formula(kind: str, query: str) -> None:
    attention = small.make_attention(kind, query)
    attended = small.attend_as(kind, query)
    weights = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    for row in range(N):
        question = Question(row, query, small.make_annotations(kind, query))
        alpha, context = FORMULAS[kind](weights, question)
        np.testing.assert_allclose(attended.context[row].numpy(), context, atol=1e-5, rtol=1e-5)
        if alpha is None:
            assert attended.maps.alpha is None
        else:
            np.testing.assert_allclose(attended.maps.alpha[row].numpy(), alpha, atol=1e-5)


@pytest.mark.parametrize("position", [0, 1, 11, 12])
def test_scheduled_window_equals_formula(position: int) -> None:
    attention = small.make_attention("local_m")
    annotations = small.make_annotations("local_m")
    with torch.no_grad():
        maps = small.attend(
            attention, small.make_query(position=position), small.prepare(attention, annotations)
        ).maps
    question = Question(0, "state", annotations)
    question.t = position
    alpha, _ = local_m({"key_layer.weight": attention.key_layer.weight.detach().double().numpy()}, question)
    np.testing.assert_allclose(maps.alpha[0].numpy(), alpha, atol=1e-5)


def test_sentinel_share_equals_softmax_term() -> None:
    """beta of Lu et al., eq. 12, found by what it does to the context."""
    maps = small.attend_as("sentinel").maps
    attention = small.make_attention("sentinel")
    w = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    annotations = small.make_annotations("sentinel")
    for row in range(N):
        x = Question(row, "state", annotations)
        _, with_sentinel = sentinel(w, x)
        _, without = additive(w, x)
        s = sigmoid(linear(w, "word_gate", x.y) + linear(w, "state_gate", x.h)) * np.tanh(x.m)
        beta = float(maps.sentinel[row])
        mixed = beta * linear(w, "sentinel_value", s) + (1 - beta) * without
        assert 0 < beta < 1
        np.testing.assert_allclose(with_sentinel, mixed, atol=1e-5)


def test_heads_have_their_own_weights() -> None:
    """The mean alone would hide heads that are mixed up."""
    maps = small.attend_as("multi_head").maps
    attention = small.make_attention("multi_head")
    w = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    for row in range(N):
        question = Question(row, "state", small.make_annotations("multi_head"))
        for head, rows in enumerate(np.split(np.arange(small.A), M)):
            own = {name: value[rows] for name, value in w.items() if not name.startswith("output")}
            alpha, _ = scaled_dot(own, question)
            np.testing.assert_allclose(maps.heads[row, head].numpy(), alpha, atol=1e-5)
