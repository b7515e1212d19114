"""REINFORCE for hard attention: its gradient against enumeration of all samples."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import config_of_kind
from torch import Tensor, nn

from model import ModelConfig
from model.attention import AttentionMaps, Memory, Query, hard
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.data.batches import Example, collate
from training.engine import losses as module
from training.engine.config import TrainConfig
from training.engine.losses import BASELINE_DECAY, ENTROPY_WEIGHT, reinforce, smoothed_cross_entropy
from training.engine.trainer import Trainer

CELLS, WORDS, V = 4, 2, 5
PATHS = torch.tensor(list(product(range(CELLS), repeat=WORDS)))  # (16, T): everything that can be drawn
BASELINES = [0.0, -1.5, 2.0]


@pytest.fixture
def without_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of log p(y) alone."""
    monkeypatch.setattr(module, "ENTROPY_WEIGHT", 0.0)


class Toy:
    """Two words about four cells: the second word and its map depend on the cell chosen for the first."""

    def __init__(self, rows: int) -> None:
        """``rows``: each gets its own copy of the same parameters, so that gradients stay apart."""
        generator = torch.Generator().manual_seed(4)
        shapes = ((CELLS,), (CELLS, CELLS), (CELLS, V), (CELLS, CELLS, V))
        once = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        self.parameters = [value.expand(rows, *value.shape).clone().requires_grad_() for value in once]
        self.targets = torch.tensor([1] * rows + [3] * rows)  # packed: the first words, then the second
        self.lengths = torch.full((rows,), WORDS)

    def read(self, chosen: Tensor) -> tuple[Tensor, AttentionMaps]:
        """Logits (words, V), packed, and the maps of rows that chose ``chosen``, (rows, T)."""
        rows, (first, second) = torch.arange(len(chosen)), chosen.T
        first_map, second_map, first_word, second_word = self.parameters
        alpha = torch.stack((first_map, second_map[rows, first]), dim=1).softmax(dim=2)
        logits = torch.cat((first_word[rows, first], second_word[rows, first, second]))
        return logits, AttentionMaps(alpha, chosen=chosen)

    def probability(self, maps: AttentionMaps) -> Tensor:
        """Of what each row chose, (rows,)."""
        return maps.alpha.gather(2, maps.chosen.unsqueeze(2)).squeeze(2).prod(dim=1)

    def log_probs(self, logits: Tensor) -> Tensor:
        """log p of the true words, (rows, T)."""
        chosen = logits.log_softmax(dim=1).gather(1, self.targets.unsqueeze(1))
        return chosen.view(WORDS, -1).T

    def gradients(self, baseline: float, chosen: Tensor = PATHS, *, direct: bool = True) -> Tensor:
        """What every row teaches about all parameters, (rows, parameters): of the mean over its words."""
        logits, maps = self.read(chosen)
        loss = reinforce(logits, self.targets, self.lengths, maps, baseline).loss
        if direct:
            loss = loss + smoothed_cross_entropy(logits, self.targets, label_smoothing=0.0)
        return flat_gradients(loss * len(chosen), self.parameters)


def flat_gradients(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten(1) for gradient in found], dim=1)


def enumerated() -> tuple[Tensor, Tensor]:
    """The probability of every path, and the gradient of the expected loss with respect to everything."""
    toy = Toy(len(PATHS))
    logits, maps = toy.read(PATHS)
    probability = toy.probability(maps)
    expected = -(probability * toy.log_probs(logits).mean(dim=1)).sum()
    # The rows are copies of one network, so what they teach adds up.
    return probability.detach(), flat_gradients(expected, toy.parameters).sum(dim=0)


@pytest.mark.usefixtures("without_entropy")
@pytest.mark.parametrize("baseline", BASELINES)
def test_reinforce_gradient_is_unbiased(baseline: float) -> None:
    probability, exact = enumerated()
    assert float(probability.sum()) == pytest.approx(1)
    mean = probability @ Toy(len(PATHS)).gradients(baseline)
    torch.testing.assert_close(mean, exact, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("without_entropy")
def test_weights_get_no_gradient_without_reinforce() -> None:
    toy = Toy(len(PATHS))
    logits, _ = toy.read(PATHS)
    direct = smoothed_cross_entropy(logits, toy.targets, label_smoothing=0.0)
    of_weights = flat_gradients(direct, toy.parameters)[:, : CELLS + CELLS * CELLS]
    assert not of_weights.any()
    assert enumerated()[1][: CELLS + CELLS * CELLS].abs().max() > 0.02


@pytest.mark.usefixtures("without_entropy")
@pytest.mark.parametrize("baseline", BASELINES[:2])
def test_sampled_gradient_matches_within_error(baseline: float) -> None:
    rows = 8000
    probability, exact = enumerated()
    drawn = torch.multinomial(probability, rows, True, generator=torch.Generator().manual_seed(1))
    each = Toy(rows).gradients(baseline, PATHS[drawn])
    error = each.std(dim=0) / rows**0.5
    assert ((each.mean(dim=0) - exact).abs() <= 4.5 * error + 1e-6).all()


@pytest.mark.usefixtures("without_entropy")
def test_baseline_reduces_gradient_variance() -> None:
    toy = Toy(len(PATHS))
    logits, maps = toy.read(PATHS)
    probability = toy.probability(maps).detach()
    reward = (probability * toy.log_probs(logits).mean(dim=1)).sum().item()

    def variance(baseline: float) -> float:
        each = Toy(len(PATHS)).gradients(baseline, direct=False)
        return float((probability @ (each - probability @ each).square()).sum())

    assert variance(reward) < variance(0.0) / 2
    assert variance(reward) < variance(2 * reward)


def entropy_of(alpha: Tensor) -> Tensor:
    return -(alpha * alpha.log()).sum(dim=-1)


def test_entropy_bonus_has_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entropy = Toy(len(PATHS)).gradients(0.0)
    monkeypatch.setattr(module, "ENTROPY_WEIGHT", 0.0)
    difference = with_entropy - Toy(len(PATHS)).gradients(0.0)
    toy = Toy(len(PATHS))
    _, maps = toy.read(PATHS)
    entropy = entropy_of(maps.alpha).mean(dim=1).sum()  # of a mean word, over the rows
    torch.testing.assert_close(difference, flat_gradients(-ENTROPY_WEIGHT * entropy, toy.parameters))
    assert difference.abs().max() > 0


def test_entropy_term_evens_weights() -> None:
    scores = torch.tensor([[[2.0, 0.0, -1.0, 0.5]]], requires_grad=True)
    before = entropy_of(scores.softmax(2)).item()
    for _ in range(50):
        maps = AttentionMaps(scores.softmax(2), chosen=torch.tensor([[0]]))
        logits = torch.zeros(1, 2)  # with the baseline of its only reward, log 1/2, nothing else teaches
        baseline = float(torch.tensor(0.5).log())
        loss = reinforce(logits, torch.tensor([0]), torch.tensor([1]), maps, baseline).loss
        [gradient] = torch.autograd.grad(loss, [scores])
        scores = (scores - 200 * gradient).detach().requires_grad_()
    assert entropy_of(scores.softmax(2)).item() > before + 0.05


def make_maps(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, AttentionMaps]:
    """Logits, targets, lengths and maps of captions, longest first, with nothing after their ends."""
    generator = torch.Generator().manual_seed(seed)
    words, rows, longest = sum(lengths), len(lengths), lengths[0]
    is_word = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)  # (N, T)
    alpha = torch.randn(rows, longest, CELLS, generator=generator).softmax(2) * is_word.unsqueeze(2)
    chosen = torch.randint(0, CELLS, (rows, longest), generator=generator).masked_fill(~is_word, -1)
    logits = torch.randn(words, V, generator=generator)
    targets = torch.randint(0, V, (words,), generator=generator)
    return logits, targets, torch.tensor(lengths), AttentionMaps(alpha.requires_grad_(), chosen=chosen)


def of_row(row: int, lengths: list[int]) -> list[int]:
    """Where the words of a caption stand among the packed ones."""
    order = [(t, n) for t in range(lengths[0]) for n in range(len(lengths)) if t < lengths[n]]
    return [index for index, (_, n) in enumerate(order) if n == row]


def test_reinforce_is_batch_invariant() -> None:
    lengths = [5, 3, 3, 1]
    logits, targets, _, maps = make_maps(lengths)
    together = reinforce(logits, targets, torch.tensor(lengths), maps, -1.0)
    gain, reward = 0.0, 0.0
    for row, length in enumerate(lengths):
        own = of_row(row, lengths)
        only = AttentionMaps(maps.alpha[row : row + 1, :length], chosen=maps.chosen[row : row + 1, :length])
        alone = reinforce(logits[own], targets[own], torch.tensor([length]), only, -1.0)
        gain += alone.loss.item() * length
        reward += alone.reward * length
    assert together.loss.item() == pytest.approx(gain / sum(lengths), rel=1e-4)
    assert together.reward == pytest.approx(reward / sum(lengths), rel=1e-4)


def test_reinforce_loss_equals_formula() -> None:
    """Written word by word: (words still to come, less the baseline) times log alpha, and the entropy."""
    lengths = [4, 2]
    logits, targets, _, maps = make_maps(lengths)
    baseline, gain = -1.3, 0.0
    for row, length in enumerate(lengths):
        own = of_row(row, lengths)
        rewards = [float(logits[at].log_softmax(0)[targets[at]]) - baseline for at in own]
        for t in range(length):
            alpha = maps.alpha[row, t].detach()
            gain += sum(rewards[t:]) * float(alpha[maps.chosen[row, t]].log())
            gain += ENTROPY_WEIGHT * float(entropy_of(alpha))
    found = reinforce(logits, targets, torch.tensor(lengths), maps, baseline).loss.item()
    assert found == pytest.approx(-gain / sum(lengths), rel=1e-4)


def test_padding_gets_no_gradient() -> None:
    logits, targets, lengths, maps = make_maps([4, 2, 1])
    reinforce(logits, targets, lengths, maps, -1.0).loss.backward()
    is_word = maps.chosen >= 0
    assert (maps.alpha.grad[~is_word] == 0).all()
    assert maps.alpha.grad[is_word].abs().sum(1).all()
    assert maps.alpha.grad.isfinite().all()


def test_expectation_images_get_no_reinforce_gradient() -> None:
    logits, targets, lengths, maps = make_maps([3, 3, 2])
    chosen = maps.chosen.clone()
    chosen[1] = -1
    drawn = AttentionMaps(maps.alpha, chosen=chosen)
    one = reinforce(logits, targets, lengths, drawn, -1.0)
    changed = logits.clone()
    changed[of_row(1, [3, 3, 2])] += torch.randn(3, V, generator=torch.Generator().manual_seed(1))
    other = reinforce(changed, targets, lengths, drawn, -1.0)
    assert one.loss.item() == pytest.approx(other.loss.item())
    assert one.reward != other.reward  # the baseline follows all words
    one.loss.backward()
    assert (maps.alpha.grad[1] == 0).all()
    assert maps.alpha.grad[0].any()


def test_reward_excludes_earlier_words() -> None:
    def gradient(shift: float) -> Tensor:
        logits, targets, lengths, maps = make_maps([3])
        logits[0, targets[0]] += shift
        reinforce(logits, targets, lengths, maps, 0.0).loss.backward()
        return maps.alpha.grad[0]

    assert not torch.allclose(gradient(0.0)[0], gradient(2.0)[0])
    torch.testing.assert_close(gradient(0.0)[1:], gradient(2.0)[1:])


def test_zero_weights_are_finite() -> None:
    logits, targets, lengths, _ = make_maps([2])
    alpha = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]], requires_grad=True)
    found = reinforce(logits, targets, lengths, AttentionMaps(alpha, chosen=torch.tensor([[0, 1]])), 0.0)
    found.loss.backward()
    assert found.loss.isfinite()
    assert alpha.grad.isfinite().all()


# The real decoder, in small.


class Forced(nn.Module):
    """Hard attention that is told which cells to take."""

    def __init__(self, attention: nn.Module, chosen: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.chosen = chosen  # (N, T)

    def prepare(self, annotations: Tensor) -> tuple[Tensor, ...]:
        return self.attention.prepare(annotations)

    def forward(self, query: Query, memory: Memory) -> tuple[Tensor, AttentionMaps]:
        alpha = self.attention.scores(query, memory).softmax(1)
        chosen = self.chosen[:, query.position]
        return memory.annotations[torch.arange(len(chosen)), chosen], AttentionMaps(alpha, chosen=chosen)


@pytest.fixture
def hard_config(config: ModelConfig) -> ModelConfig:
    """Four cells."""
    return replace(config_of_kind(config, "hard"), image_size=16, dropout=0.0)


def make_network(config: ModelConfig) -> tuple[CaptionNetwork, Tensor]:
    """A network with weights so large that it matters where it attends, and the features of a photo."""
    torch.manual_seed(2)
    network = CaptionNetwork(config).train()
    with torch.no_grad():
        for name, parameter in network.decoder.named_parameters():
            parameter.mul_(6 if "attention" in name or "context" in name else 2)
    return network, torch.randn(1, CELLS, network.encoder.feature_dim)


def read_caption(network: CaptionNetwork, memory: Memory) -> tuple[Tensor, Tensor, Tensor, AttentionMaps]:
    """A caption of two words, read by every row of ``memory``."""
    rows = len(memory.annotations)
    lengths = torch.full((rows,), WORDS)
    forced = network.teacher_force(memory, torch.tensor([[1, 6]]).expand(rows, -1), lengths)
    return forced.logits, torch.tensor([6] * rows + [2] * rows), lengths, forced.maps


def gradient_of(loss: Tensor, network: CaptionNetwork) -> Tensor:
    """With respect to everything that decides where the decoder maps."""
    found = torch.autograd.grad(loss, list(network.decoder.attention.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


def exact_gradient(network: CaptionNetwork, features: Tensor) -> Tensor:
    """Of the loss of a word expected over all sixteen paths."""
    attention = network.decoder.attention
    network.decoder.attention = Forced(attention, PATHS)
    memory = network.encode_features(features).select(torch.zeros(len(PATHS), dtype=torch.long))
    logits, targets, _, maps = read_caption(network, memory)
    network.decoder.attention = attention
    probability = maps.alpha.gather(2, PATHS.unsqueeze(2)).squeeze(2).prod(dim=1)
    log_probs = logits.log_softmax(1).gather(1, targets.unsqueeze(1)).view(WORDS, -1)
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    return gradient_of(-(probability * log_probs.mean(dim=0)).sum(), network)


@pytest.mark.usefixtures("without_entropy")
@pytest.mark.parametrize("baseline", [0.0, -2.0])
def test_decoder_gradient_matches_enumeration(hard_config: ModelConfig, baseline: float) -> None:
    network, features = make_network(hard_config)
    exact = exact_gradient(network, features)
    torch.manual_seed(5)
    estimates, direct_alone = [], []
    for _ in range(40):
        memory = network.encode_features(features)
        keys, takes_expectation = memory.prepared
        all_drawn = memory._replace(prepared=(keys, torch.zeros_like(takes_expectation)))
        read = read_caption(network, all_drawn.select(torch.zeros(250, dtype=torch.long)))
        assert (read[3].chosen >= 0).all()
        direct = smoothed_cross_entropy(*read[:2], label_smoothing=0.0)
        direct_alone.append(gradient_of(direct, network))
        estimates.append(gradient_of(direct + reinforce(*read, baseline).loss, network))
    directions = torch.randn(len(exact), 12)
    directions[:, 0] = exact

    def deviation(found: list[Tensor]) -> Tensor:
        along = (torch.stack(found) - exact) @ directions
        return along.mean(dim=0).abs() / (along.std(dim=0) / len(found) ** 0.5)

    assert (deviation(estimates) < 4.5).all()
    assert deviation(direct_alone)[0] > 10


# Training with it.

STILL = TrainConfig(
    epochs=20,
    frozen_epochs=20,
    batch_size=3,
    learning_rate=0.0,
    weight_decay=0.0,
    doubly_stochastic=0.0,
    label_smoothing=0.0,
)


def baseline_in(trainer: Trainer, folder: Path) -> float:
    """As it would be gone on with."""
    trainer.save(folder / "state.pt", {})
    return float(torch.load(folder / "state.pt", weights_only=True)["baseline"])


def test_baseline_is_moving_average_of_rewards(hard_config: ModelConfig, tmp_path: Path) -> None:
    network, features = make_network(hard_config)
    with torch.no_grad():
        network.decoder.output.weight.zero_()  # so that what is said, and with it the reward, never changes
        network.decoder.output.bias.copy_(torch.linspace(-1, 1, 11))
    trainer = Trainer(network, STILL, steps_per_epoch=5, precision="fp32")
    batch = collate([Example(features[0], [[4, 5, 6, Vocabulary.end_id], [7, Vocabulary.end_id]])])
    reward = network.decoder.output.bias.detach().log_softmax(0)[batch.targets].mean().item()
    found = []
    for _ in range(3):
        found.append(baseline_in(trainer, tmp_path))
        trainer.train_step([batch])
    found.append(baseline_in(trainer, tmp_path))
    assert pytest.approx(0.9) == BASELINE_DECAY
    assert found == pytest.approx([reward * (1 - BASELINE_DECAY**steps) for steps in range(4)], rel=1e-4)


def test_baseline_is_resumed(hard_config: ModelConfig, tmp_path: Path) -> None:
    network, features = make_network(hard_config)
    trainer = Trainer(network, STILL, steps_per_epoch=5, precision="fp32")
    batch = collate([Example(features[0], [[4, 5, 6, Vocabulary.end_id], [7, Vocabulary.end_id]])])
    trainer.train_step([batch])
    kept = baseline_in(trainer, tmp_path)
    assert kept < -0.1
    resumed = Trainer(make_network(hard_config)[0], STILL, steps_per_epoch=5, precision="fp32")
    resumed.restore(tmp_path / "state.pt")
    assert baseline_in(resumed, tmp_path) == kept


def test_other_kinds_have_no_baseline(config: ModelConfig, tmp_path: Path) -> None:
    network, features = make_network(replace(config, image_size=16))
    trainer = Trainer(network, STILL, steps_per_epoch=5, precision="fp32")
    trainer.train_step(
        [collate([Example(features[0], [[4, 5, 6, Vocabulary.end_id], [7, Vocabulary.end_id]])])]
    )
    assert baseline_in(trainer, tmp_path) == 0


def hidden_objects(count: int, seed: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of photos, in one cell of which is one of three things; the cells, and the things."""
    generator = torch.Generator().manual_seed(seed)
    cells, things = (torch.randint(0, high, (count,), generator=generator) for high in (CELLS, 3))
    features = 0.2 * torch.randn(count, CELLS, width, generator=generator)
    features[torch.arange(count), cells, things] += 3.0
    features[torch.arange(count), cells, 3] += 3.0  # there is something, whatever it is
    return features, cells, things


def names_and_finds(network: CaptionNetwork) -> tuple[float, float]:
    """In how many of sixty new photos it names the thing, and attends to its cell."""
    features, cells, things = hidden_objects(60, 999, network.encoder.feature_dim)
    with torch.no_grad():
        memory = network.eval().encode_features(features)
        start = torch.full((60,), Vocabulary.start_id)
        step = network.decoder.step(start, network.decoder.initial_state(memory), memory)
    is_named, is_found = step.logits.argmax(1) == 4 + things, step.maps.chosen == cells
    return float(is_named.float().mean()), float(is_found.float().mean())


@pytest.mark.parametrize("share", [0.5, 0.0], ids=["as it is", "draws alone"])
def test_hard_attention_learns_location(
    hard_config: ModelConfig, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Nothing says which cell shows the thing that is to be named."""
    monkeypatch.setattr(hard, "EXPECTATION_SHARE", share)
    steps, photos = 150, 60
    torch.manual_seed(0)
    # Of narrower networks, or with fewer steps, only some learn it, by the luck of their seed.
    sizes = {"attention_dim": 16, "annotation_dim": 24, "hidden_dim": 20, "embedding_dim": 28}
    network = CaptionNetwork(replace(hard_config, **sizes))
    assert names_and_finds(network)[0] < 0.6
    recipe = replace(STILL, epochs=steps, frozen_epochs=steps, learning_rate=0.02)
    trainer = Trainer(network, recipe, steps_per_epoch=1, precision="fp32")
    losses = []
    for step in range(steps):
        features, _, things = hidden_objects(photos, step, network.encoder.feature_dim)
        captions = [[[4 + int(thing), Vocabulary.end_id]] for thing in things]
        batch = collate([Example(*example) for example in zip(features, captions, strict=True)])
        losses.append(trainer.train_step([batch])[0])
    assert sum(losses[-10:]) < sum(losses[:10]) / 3
    named, found = names_and_finds(network)
    assert named > 0.9
    assert found > 0.9
