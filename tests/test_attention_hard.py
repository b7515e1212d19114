"""Hard attention: which cell it takes, at inference and in training. ``test_engine_reinforce``: its loss."""

import pytest
import torch
from support import attention_kinds as small
from support.attention_kinds import L, N
from torch import Tensor, nn

from model.attention import Memory
from model.attention.interface import weighted_sum

COUNT = 3000


def make_hard() -> nn.Module:
    """Weights of one half to nearly nothing, so that draws differ."""
    return small.make_attention("hard", scale=1.5)


def attend(attention: nn.Module, memory: Memory, rows: int = N, position: int = 4) -> small.AttentionOutput:
    """One maps of ``rows`` rows of the usual query."""
    query = small.select_query(small.make_query(position=position), slice(rows))
    attended = small.attend(attention, query, memory)
    return attended


def prepare(attention: nn.Module, **options: int) -> Memory:
    return small.prepare(attention, small.make_annotations("hard"), **options)


def assert_follows(counts: Tensor, alpha: Tensor) -> None:
    """Pearson's chi-square of counts (L,) stays within five standard deviations of its mean."""
    expected = alpha.double() * counts.sum()
    is_large = expected >= 5
    assert is_large.sum() > 5
    observed = torch.cat((counts[is_large], counts[~is_large].sum().view(1))).double()
    expected = torch.cat((expected[is_large], expected[~is_large].sum().view(1))).clamp_min(1e-3)
    degrees = len(expected) - 1
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert degrees - 5 * (2 * degrees) ** 0.5 < chi_square < degrees + 5 * (2 * degrees) ** 0.5


@torch.no_grad()
def test_inference_uses_heaviest_cell() -> None:
    attention = make_hard()
    memory = prepare(attention)
    attended = attend(attention, memory)
    assert torch.equal(attended.maps.chosen, attended.maps.alpha.argmax(1))
    assert torch.equal(attended.context, memory.annotations[torch.arange(N), attended.maps.chosen])


@torch.no_grad()
def test_seeded_sampling_ignores_earlier_draws() -> None:
    attention = make_hard()
    chosen = []
    for state in (1, 2):
        torch.manual_seed(state)
        memory = prepare(attention, draw_seed=7)
        chosen.append([attend(attention, memory, position=at).maps.chosen.tolist() for at in range(8)])
    assert chosen[0] == chosen[1]


@torch.no_grad()
def test_seeded_sampling_is_batch_invariant() -> None:
    attention = make_hard()
    together = attend(attention, prepare(attention, draw_seed=7))
    alone = attend(attention, prepare(attention, draw_seed=7).select(slice(1)), rows=1)
    assert torch.equal(alone.maps.chosen, together.maps.chosen[:1])
    annotation = small.make_annotations("hard")[0, int(alone.maps.chosen)]
    assert torch.equal(alone.context[0], annotation)


@torch.no_grad()
def test_seeded_sampling_keeps_global_rng() -> None:
    attention = make_hard()
    memory = prepare(attention, draw_seed=7)
    before = torch.get_rng_state()
    attend(attention, memory)
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_seed_and_position_change_samples() -> None:
    attention = make_hard()

    def drawn(seed: int, position: int) -> int:
        return int(attend(attention, prepare(attention, draw_seed=seed), position=position).maps.chosen[0])

    assert len({drawn(seed, 4) for seed in range(40)}) > 3
    assert len({drawn(4, position) for position in range(40)}) > 3
    assert [drawn(1, position) for position in range(20)] != [drawn(2, position) for position in range(20)]


@torch.no_grad()
@pytest.mark.parametrize("over", ["seeds", "positions"])
def test_seeded_samples_follow_weights(over: str) -> None:
    attention = make_hard()
    memory = prepare(attention)
    counts = torch.zeros(N, L)
    for at in range(COUNT // 4):
        seed, position = (at, 4) if over == "seeds" else (5, at)
        drawn = attend(attention, memory._replace(draw_seed=seed), position=position)
        counts[torch.arange(N), drawn.maps.chosen] += 1
    for row in range(N):
        assert_follows(counts[row], drawn.maps.alpha[row])


def in_training(photos: int, seed: int = 0) -> tuple[small.AttentionOutput, Memory]:
    """A maps of a batch in which every photo is the first of the usual ones."""
    torch.manual_seed(seed)
    attention = make_hard().train()
    torch.manual_seed(seed)
    annotations = small.make_annotations("hard")[:1].expand(photos, -1, -1)
    memory = small.prepare(attention, annotations)
    asked = small.make_query()
    query = asked._replace(
        vector=asked.vector[:1].expand(photos, -1), hidden=asked.hidden[:1].expand(photos, -1)
    )
    with torch.no_grad():
        attended = small.attend(attention, query, memory)
    return attended, memory


def test_half_of_training_images_use_expectation() -> None:
    attended, memory = in_training(COUNT)
    takes_expectation = attended.maps.chosen == -1
    share = float(takes_expectation.float().mean())
    assert share == pytest.approx(0.5, abs=4.5 * 0.5 / COUNT**0.5)
    expectation = weighted_sum(attended.maps.alpha, memory.annotations)
    torch.testing.assert_close(attended.context[takes_expectation], expectation[takes_expectation])
    chosen = attended.maps.chosen[~takes_expectation]
    assert torch.equal(attended.context[~takes_expectation], memory.annotations[0, chosen])


def test_training_samples_follow_weights() -> None:
    attended, _ = in_training(2 * COUNT)
    chosen = attended.maps.chosen[attended.maps.chosen >= 0]
    assert_follows(chosen.bincount(minlength=L).float(), attended.maps.alpha[0])


def test_expectation_is_chosen_per_image() -> None:
    torch.manual_seed(2)
    attention = make_hard().train()
    captions = torch.arange(N).repeat_interleave(3)
    memory = prepare(attention).select(captions)
    sides = []
    for position in range(6):
        asked = small.make_query(position=position)
        query = asked._replace(vector=asked.vector[captions], hidden=asked.hidden[captions])
        sides.append(small.attend(attention, query, memory).maps.chosen == -1)
    assert all(torch.equal(side, sides[0]) for side in sides)
    of_photos = sides[0].view(N, 3)
    assert (of_photos == of_photos[:, :1]).all()
    assert 0 < of_photos[:, 0].sum() < N


def test_training_samples_depend_on_torch_seed() -> None:
    (one, _), (same, _), (other, _) = in_training(50, 1), in_training(50, 1), in_training(50, 2)
    assert torch.equal(one.maps.chosen, same.maps.chosen)
    assert not torch.equal(one.maps.chosen, other.maps.chosen)
