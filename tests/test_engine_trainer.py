"""Trainer: losses fall, frozen parts stay frozen, and resuming is bit-exact."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import config_of_kind
from torch.optim.optimizer import register_optimizer_step_pre_hook

from model import ModelConfig, OptionsError
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.data.batches import Batch, Example, collate
from training.engine.config import TrainConfig
from training.engine.objective import Phase
from training.engine.trainer import Trainer
from training.errors import TrainingError

RECIPE = TrainConfig(epochs=4, frozen_epochs=2, batch_size=3, warmup_steps=1, seed=3)
STEPS = 2  # an epoch


def make_network(config: ModelConfig, seed: int = 0) -> CaptionNetwork:
    torch.manual_seed(seed)
    return CaptionNetwork(config)


def make_trainer(config: ModelConfig, recipe: TrainConfig = RECIPE, seed: int = 0) -> Trainer:
    return Trainer(make_network(config, seed), recipe, steps_per_epoch=STEPS, precision="fp32")


def make_batch(config: ModelConfig, seed: int, shape: tuple[int, ...] | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for lengths in ((3, 5), (2,), (4, 1)):
        inputs = torch.randn(shape or (3, config.image_size, config.image_size), generator=generator)
        captions = [torch.randint(4, 11, (length,), generator=generator).tolist() for length in lengths]
        examples.append(Example(inputs, [[*ids, Vocabulary.end_id] for ids in captions]))
    return collate(examples)


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one | other)


@pytest.mark.parametrize("kind", ["additive", "none", "sentinel", "hard"])
def test_overfits_one_batch(config, kind):
    config = config_of_kind(config, kind)
    recipe = replace(
        RECIPE, epochs=30, frozen_epochs=0, learning_rate=0.02, label_smoothing=0.0, doubly_stochastic=0.0
    )
    trainer = make_trainer(replace(config, dropout=0.0), recipe)
    batch = make_batch(config, 1)
    losses = [trainer.train_step([batch])[0] for _ in range(40)]
    assert losses[0] == pytest.approx(math.log(11), rel=0.2)
    assert losses[-1] < losses[0] / 2


def test_doubly_stochastic_term_evens_attention(config, network):
    batch = make_batch(config, 1)

    def last_penalty(weight: float) -> float:
        recipe = replace(
            RECIPE, epochs=20, frozen_epochs=0, learning_rate=0.01, doubly_stochastic=weight, clip_norm=100.0
        )
        peaky = make_network(replace(config, dropout=0.0))
        peaky.load_state_dict(network.state_dict())
        trainer = Trainer(peaky, recipe, steps_per_epoch=STEPS, precision="fp32")
        return [trainer.train_step([batch])[1] for _ in range(15)][-1]

    assert last_penalty(20.0) < last_penalty(0.0)


def test_doubly_stochastic_term_is_zero_without_maps(config):
    trainer = make_trainer(config_of_kind(config, "none"), replace(RECIPE, doubly_stochastic=1e6))
    cross_entropy, penalty, _ = trainer.train_step([make_batch(config, 1)])
    assert penalty == 0
    assert cross_entropy < 10


def test_encoder_is_frozen_then_trained(config):
    trainer = make_trainer(config)
    before = snapshot(trainer.network.encoder)
    decoder = snapshot(trainer.network.decoder)
    for step in range(4):
        assert trainer.phase is Phase.FROZEN
        trainer.train_step([make_batch(config, step)])
    assert is_same(before, snapshot(trainer.network.encoder))
    assert is_same(before, snapshot(trainer.ema_network.encoder))
    assert not is_same(decoder, snapshot(trainer.network.decoder))
    assert trainer.phase is Phase.LEARNING
    trainer.train_step([make_batch(config, 4)])
    after = snapshot(trainer.network.encoder)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_features_train_like_their_photos(config):
    batch = make_batch(config, 1)
    by_photos, by_features = make_trainer(config), make_trainer(config)
    with torch.no_grad():
        features = by_features.network.encoder(batch.inputs)
    for _ in range(2):
        by_photos.train_step([batch])
        by_features.train_step([batch._replace(inputs=features)])
    assert is_same(snapshot(by_photos.network), snapshot(by_features.network))


def test_batch_norm_keeps_pretrained_statistics(config):
    config = replace(config, encoder="mobilenet_v3_small", image_size=64)
    trainer = make_trainer(config, replace(RECIPE, frozen_epochs=1))
    names = [name for name, _ in trainer.network.encoder.named_buffers()]
    assert any(name.endswith("running_var") for name in names)
    before = snapshot(trainer.network.encoder)
    for step in range(4):
        trainer.train_step([make_batch(config, step)])
    for encoder in (trainer.network.encoder, trainer.ema_network.encoder):
        after = snapshot(encoder)
        assert all(torch.equal(before[name], after[name]) for name in names)
        assert any(not torch.equal(before[name], after[name]) for name in before)


def rates_of(module: torch.nn.Module, rates: list[dict[int, float]]) -> list[float]:
    """The one learning rate that all parameters of ``module`` had, step by step."""
    shared = [{step[id(parameter)] for parameter in module.parameters()} for step in rates]
    assert all(len(of_step) == 1 for of_step in shared)
    return [of_step.pop() for of_step in shared]


@pytest.fixture
def rates():
    """The learning rate of every parameter, by its ``id``, at every step an optimizer takes."""
    taken: list[dict[int, float]] = []

    def note(optimizer, args, kwargs):
        taken.append({id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]})

    handle = register_optimizer_step_pre_hook(note)
    yield taken
    handle.remove()


def test_learning_rate_schedules(config, rates):
    recipe = replace(RECIPE, epochs=21, frozen_epochs=8, warmup_steps=5)
    trainer = make_trainer(config, recipe)
    batch = make_batch(config, 1)
    for _ in range(42):
        trainer.train_step([batch])
    for module, peak, start in (
        (trainer.network.project, recipe.learning_rate, 0),
        (trainer.network.decoder, recipe.learning_rate, 0),
        (trainer.network.encoder, recipe.encoder_learning_rate, 16),
    ):
        values = rates_of(module, rates)
        assert all(value == 0 for value in values[:start])
        live = values[start:]
        top = live.index(max(live))
        assert top in (3, 4, 5)
        assert live[: top + 1] == sorted(live[: top + 1])
        assert live[top:] == sorted(live[top:], reverse=True)
        assert live[0] == pytest.approx(peak / 5, rel=0.01)
        assert 0.85 * peak < live[top] <= peak
        assert 0 < live[-1] < 0.01 * peak


def test_short_run_shortens_warmup(config, rates):
    trainer = make_trainer(config, replace(RECIPE, epochs=5, frozen_epochs=0, warmup_steps=1000))
    batch = make_batch(config, 1)
    for _ in range(10):
        trainer.train_step([batch])
    assert max(rates_of(trainer.network.decoder, rates)) > 0.9 * RECIPE.learning_rate


def test_encoder_frozen_throughout_has_zero_learning_rate(config, rates):
    trainer = make_trainer(config, replace(RECIPE, frozen_epochs=4))
    for step in range(8):
        trainer.train_step([make_batch(config, step)])
    assert rates_of(trainer.network.encoder, rates) == [0.0] * 8
    assert all(rate > 0 for rate in rates_of(trainer.network.decoder, rates))


def test_gradients_are_clipped(config):
    lengths = []

    def note(optimizer, args, kwargs):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        lengths.append(torch.stack([grad.norm() for grad in grads]).norm().item())

    handle = register_optimizer_step_pre_hook(note)
    try:
        for clip in (0.01, 1000.0):
            make_trainer(config, replace(RECIPE, clip_norm=clip)).train_step([make_batch(config, 1)])
    finally:
        handle.remove()
    assert lengths[0] == pytest.approx(0.01, rel=1e-3)
    assert lengths[1] > 0.1


def test_ema_lies_between_old_average_and_weights(config):
    trainer = make_trainer(config, replace(RECIPE, frozen_epochs=0, learning_rate=0.05))
    trainer.train_step([make_batch(config, 0)])
    for step in range(1, 5):
        old = snapshot(trainer.ema_network)
        trainer.train_step([make_batch(config, step)])
        new, average = snapshot(trainer.network), snapshot(trainer.ema_network)
        for name in average:
            low, high = torch.minimum(old[name], new[name]), torch.maximum(old[name], new[name])
            assert (average[name] >= low - 1e-6).all(), name
            assert (average[name] <= high + 1e-6).all(), name
        assert not is_same(average, old)
        assert not is_same(average, new)


def test_ema_decay_is_used(config):
    def distance(decay: float) -> float:
        trainer = make_trainer(config, replace(RECIPE, average_decay=decay, learning_rate=0.05))
        for step in range(6):
            trainer.train_step([make_batch(config, step)])
        new, average = snapshot(trainer.network), snapshot(trainer.ema_network)
        return sum((new[name] - average[name]).abs().sum().item() for name in new)

    assert distance(0.0) == pytest.approx(0, abs=1e-3)
    assert distance(0.05) < distance(0.9)


@pytest.mark.parametrize(("kind", "stop"), [("additive", 1), ("additive", 5), ("hard", 1), ("hard", 3)])
def test_resuming_is_bit_exact(config, tmp_path, kind, stop):
    """Hard attention samples locations and keeps a moving baseline; both resume too."""
    config = config_of_kind(config, kind)
    batches = [make_batch(config, step) for step in range(7)]
    through = make_trainer(config)
    losses = [through.train_step([batch]) for batch in batches]

    stopped = make_trainer(config)
    for batch in batches[:stop]:
        stopped.train_step([batch])
    stopped.save(tmp_path / "state.pt", {"epoch": 1, "losses": [0.5, 0.25]})
    stopped.train_step([batches[0]])  # what happens after saving must not matter

    resumed = make_trainer(config, seed=9)
    torch.manual_seed(123)
    assert resumed.restore(tmp_path / "state.pt") == {"epoch": 1, "losses": [0.5, 0.25]}
    assert resumed.step == stop
    torch.rand(5)  # nor what else draws random numbers, such as a data loader that starts
    assert [resumed.train_step([batch]) for batch in batches[stop:]] == losses[stop:]
    assert is_same(snapshot(resumed.network), snapshot(through.network))
    assert is_same(snapshot(resumed.ema_network), snapshot(through.ema_network))


def test_dropout_differs_between_steps(config):
    trainer = make_trainer(config, replace(RECIPE, learning_rate=0.0, weight_decay=0.0))
    batch = make_batch(config, 1)
    losses = {trainer.train_step([batch])[0] for _ in range(4)}
    assert len(losses) == 4


def test_seed_changes_training(config):
    one, other = make_trainer(config), make_trainer(config, replace(RECIPE, seed=4))
    for trainer in (one, other):
        trainer.train_step([make_batch(config, 1)])
    assert not is_same(snapshot(one.network), snapshot(other.network))


def test_failed_save_keeps_previous_state(config, tmp_path, monkeypatch):
    trainer = make_trainer(config)
    path = tmp_path / "state.pt"
    trainer.save(path, {"epoch": 1})

    def full(state, target):
        target.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        trainer.save(path, {"epoch": 2})
    assert make_trainer(config).restore(path) == {"epoch": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_loss_stops_before_update(config, value):
    trainer = make_trainer(config)
    trainer.train_step([make_batch(config, 1)])
    with torch.no_grad():
        trainer.network.decoder.output.bias[5] = value
    before, average = snapshot(trainer.network.encoder), snapshot(trainer.ema_network)
    with pytest.raises(TrainingError, match="loss is not finite at step 1.*lower learning rate"):
        trainer.train_step([make_batch(config, 2)])
    assert is_same(before, snapshot(trainer.network.encoder))
    assert is_same(average, snapshot(trainer.ema_network))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b'{"step": 1}', b"PK\x03\x04torn", b"\x80\x02garbage", b"a" * 100, b"."],
    ids=["empty", "text", "json", "zip", "pickle", "letters", "dot"],
)
def test_foreign_state_file_is_refused(config, tmp_path, content):
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.pt") as caught:
        make_trainer(config).restore(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_state_is_refused(config, tmp_path, share):
    path = tmp_path / "state.pt"
    make_trainer(config).save(path, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TrainingError, match=r"state\.pt"):
        make_trainer(config).restore(path)


@pytest.mark.parametrize("value", [[1, 2], 7, torch.ones(3), {"network": 1}, {"step": 1}, None])
def test_state_of_other_program_is_refused(config, tmp_path, value):
    torch.save(value, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt"):
        make_trainer(config).restore(tmp_path / "state.pt")


PARTS = ("network", "average", "optimizer", "scaler", "step", "baseline", "progress")


@pytest.mark.parametrize("lost", PARTS)
def test_incomplete_state_is_refused(config, tmp_path, lost):
    path = tmp_path / "state.pt"
    make_trainer(config).save(path, {})
    state = torch.load(path, weights_only=True)
    del state[lost]
    torch.save(state, path)
    with pytest.raises(TrainingError, match=r"state\.pt"):
        make_trainer(config).restore(path)


def test_state_of_other_network_is_refused(config, tmp_path):
    path = tmp_path / "state.pt"
    make_trainer(config).save(path, {})
    with pytest.raises(TrainingError, match=r"state\.pt") as caught:
        make_trainer(replace(config, hidden_dim=8)).restore(path)
    assert "\n" not in str(caught.value)


def test_missing_state_is_named(config, tmp_path):
    with pytest.raises(TrainingError, match=r"state\.pt"):
        make_trainer(config).restore(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"frozen_epochs": -1}, "--frozen-epochs"),
        ({"warmup_steps": 0}, "--warmup-steps"),
        ({"label_smoothing": 1.0}, "label.smoothing"),
        ({"average_decay": 1.0}, "average.decay"),
        ({"average_decay": -0.1}, "average.decay"),
        ({"clip_norm": 0.0}, "--clip-norm"),
        ({"doubly_stochastic": -1.0}, "--doubly-stochastic"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"encoder_learning_rate": -1.0}, "--encoder-learning-rate"),
    ],
)
def test_invalid_config_is_named(changes, named):
    with pytest.raises(OptionsError, match=named):
        replace(RECIPE, **changes)
