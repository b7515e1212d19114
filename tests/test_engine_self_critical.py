"""Self-critical training: sampling, rewards and gradients."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import random_network

from model.decoding.constraints import BANNED_IDS
from model.decoding.sampling import sample
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.data.batches import Batch, Example, collate
from training.engine.cider_reward import CiderReward
from training.engine.config import TrainConfig
from training.engine.losses import leave_one_out, self_critical
from training.engine.objective import Phase
from training.engine.trainer import Trainer

END = Vocabulary.end_id
RECIPE = TrainConfig(
    epochs=30,
    frozen_epochs=0,
    self_critical_epochs=30,
    self_critical_learning_rate=1e-2,
    samples=6,
    warmup_steps=1,
    weight_decay=0.0,
    average_decay=0.0,
    doubly_stochastic=0.0,
)


def make_batch(image_size: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    captions = (
        [[4, 5, 7, 9, END], [4, 5, 7, 10, END]],
        [[8, 6, END]],
        [[10, 4, 6, 5, END], [10, 4, END]],
    )
    examples = [
        Example(torch.randn((3, image_size, image_size), generator=generator), texts) for texts in captions
    ]
    return collate(examples)


def draw(network: CaptionNetwork, images: torch.Tensor, *, max_length: int, seed: int) -> list[list[int]]:
    memory = network.encode(images)
    decoder = network.decoder
    generator = torch.Generator().manual_seed(seed)
    start = decoder.initial_state(memory)
    return sample(decoder.step, start, memory, max_length=max_length, generator=generator)


def test_sampled_captions_are_well_formed(network):
    images = torch.randn(40, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    captions = draw(network, images, max_length=6, seed=0)
    assert len(captions) == 40
    assert any(len(ids) == 6 and ids[-1] != END for ids in captions)
    for ids in captions:
        assert 1 <= len(ids) <= 7
        assert ids[0] != END
        assert END not in ids[:-1]
        assert not set(ids) & set(BANNED_IDS)


def test_sampling_follows_decoder_probabilities(network):
    image = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)).expand(4000, -1, -1, -1)
    with torch.no_grad():
        memory = network.encode(image[:1])
        start = torch.tensor([Vocabulary.start_id])
        logits = network.decoder.step(start, network.decoder.initial_state(memory), memory).logits[0]
    logits[[*BANNED_IDS, END]] = -torch.inf
    counts = Counter(ids[0] for ids in draw(network, image, max_length=1, seed=2))
    for index, probability in enumerate(logits.softmax(0).tolist()):
        assert counts[index] / 4000 == pytest.approx(probability, abs=0.03)


def test_baseline_is_mean_of_other_samples():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    assert leave_one_out(rewards).tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


def test_gradient_is_of_expected_reward():
    """One word of five, so that the expectation can be summed up: many samples' mean gradient is near it."""
    logits = torch.tensor([0.3, -0.2, 0.9, 0.0, -1.0], requires_grad=True)
    worth = torch.tensor([1.0, 0.0, 3.0, 0.5, 2.0])
    (expected,) = torch.autograd.grad((logits.softmax(0) * worth).sum(), logits)

    generator = torch.Generator().manual_seed(0)
    groups, each = 20_000, 3
    drawn = torch.multinomial(logits.detach().softmax(0), groups * each, True, generator=generator)
    advantages = leave_one_out(worth[drawn].view(groups, each)).flatten()
    loss = self_critical(
        logits.log_softmax(0).expand(len(drawn), -1),
        drawn,
        torch.ones(len(drawn), dtype=torch.long),
        advantages,
    )
    (found,) = torch.autograd.grad(-loss, logits)
    assert found == pytest.approx(expected, abs=0.02)


def test_every_word_gets_the_caption_reward():
    """Captions of 3 and 1 words, packed step by step: word, word | word | word."""
    logits = torch.zeros(4, 6, requires_grad=True)
    targets = torch.tensor([1, 2, 3, 4])
    rewards = torch.tensor([2.0, -5.0])
    self_critical(logits.log_softmax(1), targets, torch.tensor([3, 1]), rewards).backward()
    for row, reward in enumerate((2.0, -5.0, 2.0, 2.0)):
        wanted = torch.full((6,), reward / 6 / 2)
        wanted[targets[row]] -= reward / 2
        assert logits.grad[row] == pytest.approx(wanted, abs=1e-6)


@pytest.fixture
def trainer(config):
    batch = make_batch(config.image_size)
    torch.manual_seed(0)
    network = CaptionNetwork(config)
    return Trainer(network, RECIPE, steps_per_epoch=8, reward=CiderReward(batch.references()))


def test_self_critical_training_raises_reward(trainer, config):
    batch = make_batch(config.image_size)
    rewards = [trainer.train_step([batch]).reward for _ in range(200)]
    assert sum(rewards[-20:]) > 1.5 * sum(rewards[:20])


def test_banned_tokens_get_no_gradient(trainer, config):
    """It has no reward of its own, so nothing would ever push it down again."""
    bias = trainer.network.decoder.output.bias
    before = bias.detach().clone()
    for _ in range(20):
        trainer.train_step([make_batch(config.image_size)])
    assert torch.equal(bias[[*BANNED_IDS]], before[[*BANNED_IDS]])
    assert not torch.equal(bias[4:], before[4:])


def test_self_critical_phase_freezes_encoder(config):
    batch = make_batch(config.image_size)
    torch.manual_seed(0)
    trainer = Trainer(
        CaptionNetwork(config), RECIPE, steps_per_epoch=8, reward=CiderReward(batch.references())
    )
    trainer.begin_epoch(0)
    before = {name: value.clone() for name, value in trainer.network.encoder.named_parameters()}
    for _ in range(3):
        report = trainer.train_step([batch])
    assert report.cross_entropy == 0
    after = dict(trainer.network.encoder.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert trainer.learning_rates[0] == 0


def test_self_critical_phase_starts_from_ema(config):
    batch = make_batch(config.image_size)
    recipe = replace(RECIPE, epochs=2, self_critical_epochs=1, average_decay=0.9, learning_rate=0.05)
    trainer = Trainer(
        random_network(config), recipe, steps_per_epoch=2, reward=CiderReward(batch.references())
    )
    assert trainer.begin_epoch(0) is Phase.LEARNING
    for _ in range(2):
        trainer.train_step([batch])
    average = {name: value.clone() for name, value in trainer.ema_network.state_dict().items()}
    assert not all(torch.equal(value, average[name]) for name, value in trainer.network.state_dict().items())
    assert trainer.begin_epoch(0) is Phase.LEARNING  # of a run that went on after the last step of an epoch
    assert not all(torch.equal(value, average[name]) for name, value in trainer.network.state_dict().items())
    assert trainer.begin_epoch(1) is Phase.SELF_CRITICAL
    assert all(torch.equal(value, average[name]) for name, value in trainer.network.state_dict().items())


def test_batch_keeps_its_references(config):
    captions = [[[4, 5, 7, END], [9, END]], [[8, 6, END]], [[5, END], [4, 4, 4, 4]]]  # one is truncated
    batch = collate([Example(torch.zeros(3, 40, 40), texts) for texts in captions])
    found = [sorted(texts) for texts in batch.references()]
    assert found == [sorted(texts) for texts in captions]
