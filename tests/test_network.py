"""The decoder's one step, and teacher forcing as a loop over it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from model import ModelConfig
from model.network import CaptionNetwork

B, T = 3, 4


def photographs(count: int = B, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 40, 40, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_shapes_of_a_step(network: CaptionNetwork, config: ModelConfig) -> None:
    memory = network.remember(photographs())
    step = network.decoder.step(torch.tensor([1, 4, 5]), network.decoder.initial_state(memory), memory)
    assert memory.annotations.shape == (B, 25, config.annotation_dim)
    assert memory.keys.shape == (B, 25, config.attention_dim)
    assert step.logits.shape == (B, config.vocabulary_size)
    assert step.alpha.shape == (B, 25)
    assert step.beta.shape == (B, 1)
    assert step.state.hidden.shape == step.state.cell.shape == (B, config.hidden_dim)
    assert ((step.beta > 0) & (step.beta < 1)).all()


@torch.no_grad()
def test_a_step_is_the_papers_equations(network: CaptionNetwork) -> None:
    memory = network.remember(photographs(1))
    state = network.decoder.initial_state(memory)
    step = network.decoder.step(torch.tensor([6]), state, memory)
    weights = {name: value.double().numpy() for name, value in network.decoder.named_parameters()}
    annotations = memory.annotations[0].double().numpy()

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights.get(f"{name}.bias", 0)

    h = np.tanh(linear("initial_hidden", annotations.mean(0)))
    c = np.tanh(linear("initial_cell", annotations.mean(0)))
    z = sigmoid(linear("gate", h)) * (step.alpha[0].double().numpy() @ annotations)
    word = weights["embedding.weight"][6]
    gates = weights["lstm.weight_ih"] @ np.concatenate((word, z)) + weights["lstm.bias_ih"]
    gates += weights["lstm.weight_hh"] @ h + weights["lstm.bias_hh"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    joined = np.tanh(word + linear("state_to_output", h) + linear("context_to_output", z))
    np.testing.assert_allclose(step.logits[0].numpy(), linear("output", joined), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(step.state.cell[0].numpy(), c, atol=1e-4)


@torch.no_grad()
def test_reading_captions_together_is_stepping_through_each_alone(network: CaptionNetwork) -> None:
    memory = network.remember(photographs())
    words = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 0], [1, 9, 0, 0]])
    lengths = torch.tensor([4, 3, 2])
    reading = network.read(memory, words, lengths)
    expected = torch.zeros(B, T, network.decoder.output.out_features)
    for row in range(B):
        alone = memory.select(slice(row, row + 1))
        state = network.decoder.initial_state(alone)
        for t in range(int(lengths[row])):
            step = network.decoder.step(words[row : row + 1, t], state, alone)
            state = step.state
            expected[row, t] = step.logits[0]
            torch.testing.assert_close(reading.alphas[row, t], step.alpha[0], rtol=1e-4, atol=1e-5)
        assert (reading.alphas[row, int(lengths[row]) :] == 0).all()
    packed = pack_padded_sequence(expected, lengths, batch_first=True).data
    torch.testing.assert_close(reading.logits, packed, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_fed_after_the_end_of_a_caption_changes_nothing(network: CaptionNetwork) -> None:
    memory = network.remember(photographs())
    lengths = torch.tensor([4, 3, 2])
    one = network.read(memory, torch.tensor([[1, 4, 5, 6], [1, 7, 8, 0], [1, 9, 0, 0]]), lengths)
    other = network.read(memory, torch.tensor([[1, 4, 5, 6], [1, 7, 8, 3], [1, 9, 5, 5]]), lengths)
    torch.testing.assert_close(one.logits, other.logits)


def test_captions_leave_the_batch_without_changing_the_others(network: CaptionNetwork) -> None:
    """More captions than leave at once, so that the batch shrinks on the way."""
    count = 70
    memory = network.remember(photographs(1)).select(torch.zeros(count, dtype=torch.long))
    words = torch.randint(4, 11, (count, T), generator=torch.Generator().manual_seed(4))
    lengths = torch.tensor([T] * 3 + [2] * 30 + [1] * (count - 33))
    reading = network.read(memory, words, lengths)
    alone = network.read(memory.select(slice(1)), words[:1], lengths[:1])
    first = pack_padded_sequence(torch.arange(count).repeat(T, 1).T, lengths, batch_first=True).data == 0
    torch.testing.assert_close(reading.logits[first], alone.logits, rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_parameter(network: CaptionNetwork) -> None:
    reading = network.read(network.remember(photographs(1)), torch.tensor([[1, 4, 5, 6]]), torch.tensor([4]))
    torch.nn.functional.cross_entropy(reading.logits, torch.tensor([4, 5, 6, 2])).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []
