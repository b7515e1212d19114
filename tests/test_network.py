"""One decoder step, and teacher forcing as a loop over it, for every kind of attention and cell."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of_kind, random_network
from numpy.typing import NDArray
from torch.nn.utils.rnn import pack_padded_sequence

from model import ModelConfig
from model.attention import ATTENTION_KINDS, AttentionMaps
from model.decoder import DecoderState
from model.network import CaptionNetwork
from training.engine.losses import reinforce

B, T = 3, 4
KINDS = tuple(ATTENTION_KINDS)
# The other ways a decoder can differ, each with the attention that shows it best.
VARIANTS: dict[str, dict[str, Any]] = {
    "gru": {"cell": "gru"},
    "gru with a sentinel": {"cell": "gru", "attention": "sentinel"},
    "vector gate": {"gate": "vector"},
    "no gate": {"gate": "off"},
    "word in the query": {"query": "state_and_word"},
    "word in the query of a window": {"query": "state_and_word", "attention": "local_p"},
    "grid layer": {"grid_layers": 1, "annotation_dim": 8, "attention_heads": 2},
    "joined grid": {"grid": "joined", "attention": "location"},
}
EVERYTHING = (*KINDS, *VARIANTS)
# The bias of the keys cancels in the softmax; see test_attention.
WITHOUT_EFFECT = {kind: {"decoder.attention.key_layer.bias"} for kind in ("scaled_dot", "multi_head")}


def config_of(config: ModelConfig, name: str) -> ModelConfig:
    """A kind of attention, or one of ``VARIANTS``."""
    return config_of_kind(config, name) if name in KINDS else replace(config, **VARIANTS[name])


@pytest.fixture
def any_network(config: ModelConfig, name: str) -> CaptionNetwork:
    return random_network(config_of(config, name))


def photos(count: int = B, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 40, 40, generator=torch.Generator().manual_seed(seed))


def assert_same_maps(one: AttentionMaps, other: AttentionMaps) -> None:
    for name, seen, again in zip(AttentionMaps._fields, one, other, strict=True):
        assert (seen is None) == (again is None), name
        if seen is not None:
            torch.testing.assert_close(seen, again, rtol=1e-4, atol=1e-5, msg=name)


Array = NDArray[np.float64]


class Equations:
    """The step once more, for one row, in NumPy: written from the papers."""

    def __init__(self, network: CaptionNetwork) -> None:
        self.weights = {name: value.double().numpy() for name, value in network.decoder.state_dict().items()}

    def linear(self, name: str, x: Array) -> Array:
        return self.weights[f"{name}.weight"] @ x + self.weights.get(f"{name}.bias", 0)

    def split(self, of: str, x: Array, parts: int) -> list[Array]:
        name = f"recurrent.cell.{{}}_{of}"
        return np.split(self.weights[name.format("weight")] @ x + self.weights[name.format("bias")], parts)

    def lstm(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Xu et al. 2015, eqs. 1 to 3."""
        i, f, g, o = (a + b for a, b in zip(self.split("ih", x, 4), self.split("hh", h, 4), strict=True))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def gru(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Cho et al. 2014, eqs. 5 to 8, the reset gate behind the product."""
        of_input, of_state = self.split("ih", x, 3), self.split("hh", h, 3)
        reset, update = (sigmoid(of_input[gate] + of_state[gate]) for gate in (0, 1))
        h = update * h + (1 - update) * np.tanh(of_input[2] + reset * of_state[2])
        return h, h

    def start(self, mean: Array) -> tuple[Array, Array]:
        h = np.tanh(self.linear("recurrent.initial_hidden", mean))
        has_cell = "recurrent.initial_cell.weight" in self.weights
        return h, np.tanh(self.linear("recurrent.initial_cell", mean)) if has_cell else h

    def step(self, cell: str, word: Array, z: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Logits, h and c after a word and the gated context."""
        h, c = getattr(self, cell)(np.concatenate((word, z)), h, c)
        joined = word + self.linear("state_to_output", h) + self.linear("context_to_output", z)
        return self.linear("output", np.tanh(joined)), h, c


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@torch.no_grad()
@pytest.mark.parametrize("gate", ["scalar", "vector", "off"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_step_equals_equations(config: ModelConfig, cell: str, gate: str) -> None:
    network = random_network(replace(config, cell=cell, gate=gate))
    equations = Equations(network)
    memory = network.encode(photos(1))
    annotations = memory.annotations[0].double().numpy()
    h, c = equations.start(annotations.mean(0))
    state = network.decoder.initial_state(memory)
    for word in (6, 4, 8):
        step = network.decoder.step(torch.tensor([word]), state, memory)
        z = step.maps.alpha[0].double().numpy() @ annotations
        if gate == "off":
            assert step.maps.beta is None
        else:
            beta = sigmoid(equations.linear("gate", h))
            assert step.maps.beta.item() == pytest.approx(beta.mean(), abs=1e-4)
            z = beta * z
        logits, h, c = equations.step(cell, equations.weights["embedding.weight"][word], z, h, c)
        np.testing.assert_allclose(step.logits[0].numpy(), logits, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(step.state.hidden[0].numpy(), h, atol=1e-4)
        np.testing.assert_allclose(step.state.cell[0].numpy(), c, atol=1e-4)
        state = step.state


@torch.no_grad()
def test_query_includes_word_if_configured(config: ModelConfig) -> None:
    for query, is_other in (("state", False), ("state_and_word", True)):
        network = random_network(replace(config, query=query))
        memory = network.encode(photos(1))
        state = network.decoder.initial_state(memory)
        one, other = (network.decoder.step(torch.tensor([id]), state, memory).maps.alpha for id in (5, 6))
        assert torch.equal(one, other) is not is_other


def assert_shapes(network: CaptionNetwork, config: ModelConfig, cells: int) -> None:
    """Of one step of three rows, and that it has what its kind computes and nothing else."""
    memory = network.encode(photos())
    state = network.decoder.initial_state(memory)
    step = network.decoder.step(torch.tensor([1, 4, 5]), state, memory)
    assert memory.annotations.shape == (B, cells, config.annotation_dim)
    assert step.logits.shape == (B, config.vocabulary_size)
    assert step.state.hidden.shape == step.state.cell.shape == (B, config.hidden_dim)
    assert (state.position, step.state.position) == (0, 1)
    maps, kind = step.maps, config.attention
    assert (maps.alpha is None) == (kind == "none")
    assert maps.alpha is None or maps.alpha.shape == (B, cells)
    assert (maps.heads is not None) == (kind == "multi_head")
    assert (maps.sentinel is not None) == (kind == "sentinel")
    assert (maps.chosen is not None) == (kind == "hard")
    assert (maps.beta is None) == (config.gate == "off")
    assert maps.beta is None or (maps.beta.shape == (B,) and ((maps.beta > 0) & (maps.beta < 1)).all())


@torch.no_grad()
@pytest.mark.parametrize("name", EVERYTHING)
def test_teacher_forcing_equals_stepping(any_network: CaptionNetwork, config: ModelConfig, name: str) -> None:
    assert_shapes(any_network, config_of(config, name), cells=100 if name == "joined grid" else 25)
    memory = any_network.encode(photos())
    words = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 0], [1, 9, 0, 0]])
    lengths = torch.tensor([4, 3, 2])
    forced = any_network.teacher_force(memory, words, lengths)
    expected = torch.zeros(B, T, any_network.decoder.output.out_features)
    for row in range(B):
        alone = memory.select(slice(row, row + 1))
        state = any_network.decoder.initial_state(alone)
        for t in range(int(lengths[row])):
            step = any_network.decoder.step(words[row : row + 1, t], state, alone)
            state = step.state
            expected[row, t] = step.logits[0]
            assert_same_maps(forced.maps.select(row).select(t), step.maps.select(0))
        for field, seen in zip(AttentionMaps._fields, forced.maps.select(row), strict=True):
            nothing = -1 if field == "chosen" else 0
            assert seen is None or (seen[int(lengths[row]) :] == nothing).all()
    packed = pack_padded_sequence(expected, lengths, batch_first=True).data
    torch.testing.assert_close(forced.logits, packed, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_state_select_takes_rows(network: CaptionNetwork) -> None:
    state = DecoderState(torch.randn(B, 7), torch.randn(B, 7), position=5)
    some = state.select(torch.tensor([2, 2, 0]))
    assert some.position == 5
    assert torch.equal(some.hidden, state.hidden[[2, 2, 0]])
    assert torch.equal(some.cell, state.cell[[2, 2, 0]])


@torch.no_grad()
def test_padding_words_have_no_effect(network: CaptionNetwork) -> None:
    memory = network.encode(photos())
    lengths = torch.tensor([4, 3, 2])
    one = network.teacher_force(memory, torch.tensor([[1, 4, 5, 6], [1, 7, 8, 0], [1, 9, 0, 0]]), lengths)
    other = network.teacher_force(memory, torch.tensor([[1, 4, 5, 6], [1, 7, 8, 3], [1, 9, 5, 5]]), lengths)
    torch.testing.assert_close(one.logits, other.logits)


def test_finished_captions_do_not_affect_others(network: CaptionNetwork) -> None:
    """More captions than leave at once, so that the batch shrinks on the way."""
    count = 70
    memory = network.encode(photos(1)).select(torch.zeros(count, dtype=torch.long))
    words = torch.randint(4, 11, (count, T), generator=torch.Generator().manual_seed(4))
    lengths = torch.tensor([T] * 3 + [2] * 30 + [1] * (count - 33))
    forced = network.teacher_force(memory, words, lengths)
    alone = network.teacher_force(memory.select(slice(1)), words[:1], lengths[:1])
    first = pack_padded_sequence(torch.arange(count).repeat(T, 1).T, lengths, batch_first=True).data == 0
    torch.testing.assert_close(forced.logits[first], alone.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EVERYTHING)
def test_gradients_reach_every_parameter(any_network: CaptionNetwork, name: str) -> None:
    torch.manual_seed(1)
    network = any_network.train()
    if name == "joined grid":  # its own layer begins at zero, and lets nothing through until it has moved
        torch.nn.init.normal_(network.project.fine_layer.weight)
    targets, lengths = torch.tensor([4] * 8 + [5] * 8 + [6] * 8 + [2] * 8), torch.full((8,), T)
    words = torch.tensor([[1, 4, 5, 6]]).expand(8, -1)
    forced = network.teacher_force(network.encode(photos(8)), words, lengths)
    loss = torch.nn.functional.cross_entropy(forced.logits, targets)
    if name == "hard":
        loss = loss + reinforce(forced.logits, targets, lengths, forced.maps, -2.0).loss
    loss.backward()
    largest = {
        name: 0 if p.grad is None else float(p.grad.abs().max()) for name, p in network.named_parameters()
    }
    without = {name for name, size in largest.items() if size < 1e-7}
    assert without <= WITHOUT_EFFECT.get(name, set())  # what cancels may leave a rounding error
