"""Properties of every kind of attention, those of single kinds, and invalid sizes.

``test_attention_formulas`` compares the numbers, ``test_attention_hard`` has what is drawn.
"""

import math

import pytest
import torch
from support import attention_kinds as small
from support.attention_kinds import COLUMNS, KINDS, ROWS, WITH_MAPS, A, D, E, H, L, M, N
from torch import Tensor, nn

from model.attention import AttentionMaps, Memory, build_attention
from model.attention.local import STOPS
from model.errors import CheckpointError

SWEEP = math.prod(STOPS)  # words in which local_m passes over the whole grid
# Weights that belong to a position on the grid, whatever is there: the other cells cannot change places.
PLACE_AWARE = ("location", "local_m", "local_p")
# No map at all, and always the same one.
QUERY_INDEPENDENT = ("none", "uniform")
# A bias on the keys adds q . b to every score alike, which the softmax takes out again; the layer has it
# because torch.nn.MultiheadAttention has.
WITHOUT_EFFECT = {"scaled_dot": {"key_layer.bias"}, "multi_head": {"key_layer.bias"}}


@pytest.mark.parametrize("kind", WITH_MAPS)
def test_weights_are_nonnegative_and_sum_to_one(kind: str) -> None:
    attended = small.attend_as(kind)
    alpha = attended.maps.alpha
    assert alpha.shape == (N, L)
    assert attended.context.shape == (N, small.sizes_for(kind).annotation)
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(1), torch.ones(N))


def test_no_attention_has_context_but_no_map() -> None:
    attended = small.attend_as("none")
    assert attended.context.shape == (N, D)
    assert attended.maps == AttentionMaps()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*QUERY_INDEPENDENT, "local_m")])
def test_weights_depend_on_query(kind: str) -> None:
    attention = small.make_attention(kind)
    memory = small.prepare(attention, small.make_annotations(kind))
    one, other = (small.attend(attention, small.make_query(seed=seed), memory).maps.alpha for seed in (1, 11))
    assert ((one - other).abs().sum(1) > 1e-2).all()


def test_scheduled_window_depends_on_query_and_position() -> None:
    attention = small.make_attention("local_m")
    memory = small.prepare(attention, small.make_annotations("local_m"))
    maps = small.attend(attention, small.make_query(), memory).maps.alpha
    for asked in (small.make_query(seed=11), small.make_query(position=5)):
        assert ((small.attend(attention, asked, memory).maps.alpha - maps).abs().sum(1) > 1e-2).all()


@pytest.mark.parametrize("kind", QUERY_INDEPENDENT)
def test_query_independent_kinds_ignore_query(kind: str) -> None:
    attention = small.make_attention(kind)
    memory = small.prepare(attention, small.make_annotations(kind))
    one, other = (
        small.attend(attention, small.make_query(seed=seed, position=seed), memory) for seed in (1, 11)
    )
    assert torch.equal(one.context, other.context)


@pytest.mark.parametrize("kind", [kind for kind in WITH_MAPS if kind not in ("uniform", "location")])
def test_previous_word_matters_only_if_in_query(kind: str) -> None:
    for query, has_word in (("state", False), ("state_and_word", True)):
        attention = small.make_attention(kind, query)
        memory = small.prepare(attention, small.make_annotations(kind, query))
        asked, other = small.make_query(query), small.make_query(query, seed=11)
        vector = asked.hidden if query == "state" else torch.cat((asked.hidden, other.word), dim=1)
        changed = asked._replace(word=other.word, vector=vector)
        same = torch.equal(
            small.attend(attention, asked, memory).maps.alpha,
            small.attend(attention, changed, memory).maps.alpha,
        )
        assert same is not has_word


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLACE_AWARE])
def test_attention_is_permutation_equivariant(kind: str) -> None:
    attention, asked = small.make_attention(kind), small.make_query()
    annotations = small.make_annotations(kind)
    order = torch.randperm(L, generator=torch.Generator().manual_seed(9))
    straight = small.attend(attention, asked, small.prepare(attention, annotations))
    permuted = small.attend(attention, asked, small.prepare(attention, annotations[:, order]))
    torch.testing.assert_close(permuted.context, straight.context)
    if kind != "none":
        torch.testing.assert_close(permuted.maps.alpha, straight.maps.alpha[:, order])
    if straight.maps.chosen is not None:
        assert torch.equal(order[permuted.maps.chosen], straight.maps.chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_batch_invariant(kind: str) -> None:
    attention, asked = small.make_attention(kind), small.make_query()
    annotations = small.make_annotations(kind)
    together = small.attend(attention, asked, small.prepare(attention, annotations))
    for row in range(N):
        only = slice(row, row + 1)
        memory = small.prepare(attention, annotations[only])
        alone = small.attend(attention, small.select_query(asked, only), memory)
        torch.testing.assert_close(alone.context, together.context[only])
        for one, all_of_them in zip(alone.maps, together.maps, strict=True):
            assert (one is None) == (all_of_them is None)
            if one is not None:
                torch.testing.assert_close(one, all_of_them[only])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_parameters_and_annotations(kind: str) -> None:
    torch.manual_seed(8)
    attention = small.make_attention(kind).train()
    annotations = small.make_annotations(kind).requires_grad_()
    attended = small.attend(attention, small.make_query(), small.prepare(attention, annotations))
    loss = attended.context.square().sum()
    if kind == "hard":  # a drawn cell passes no gradient to its weight; REINFORCE does, through log alpha
        loss = loss + attended.maps.alpha.log().square().sum()
    loss.backward()
    assert annotations.grad.abs().sum() > 0
    largest = {name: float(p.grad.abs().max()) for name, p in attention.named_parameters()}
    assert {name for name, size in largest.items() if size < 1e-4} == WITHOUT_EFFECT.get(kind, set())


@pytest.mark.parametrize("kind", WITH_MAPS)
def test_softmax_is_float32_under_autocast(kind: str) -> None:
    attention = small.make_attention(kind, scale=1.0)
    annotations, asked = small.make_annotations(kind), small.make_query()
    exact = small.attend(attention, asked, small.prepare(attention, annotations))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = small.attend(attention, asked, small.prepare(attention, annotations))
    for weights in filter(lambda seen: seen is not None, (mixed.maps.alpha, mixed.maps.heads)):
        assert weights.dtype == torch.float32
        # bfloat16 would be off by a hundredth
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.maps.alpha, exact.maps.alpha, atol=0.02, rtol=0.1)
    assert mixed.context.isfinite().all()


def test_scaled_dot_attention_equals_torch() -> None:
    attention, asked = small.make_attention("scaled_dot"), small.make_query()
    annotations = small.make_annotations("scaled_dot")
    found = small.attend(attention, asked, small.prepare(attention, annotations))
    expected = nn.functional.scaled_dot_product_attention(
        attention.query_layer(asked.vector).unsqueeze(1),
        attention.key_layer(annotations),
        attention.value_layer(annotations),
    )
    torch.testing.assert_close(found.context, expected.squeeze(1))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_multi_head_attention_equals_torch(heads: int) -> None:
    width = 8  # torch's has one width for queries, attention and result
    torch.manual_seed(4)
    ours = build_attention(
        "multi_head",
        small.sizes_for("multi_head")._replace(
            annotation=width, query=width, hidden=width, attention=width, heads=heads
        ),
    )
    theirs = nn.MultiheadAttention(width, heads, batch_first=True)
    layers = (ours.query_layer, ours.key_layer, ours.value_layer)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.out_proj.load_state_dict(ours.output_layer.state_dict())
    annotations, hidden = torch.randn(N, L, width), torch.randn(N, width)
    asked = small.make_query()._replace(vector=hidden)
    found = small.attend(ours, asked, small.prepare(ours, annotations))

    def expected(*, average: bool) -> tuple[Tensor, Tensor]:
        context, weights = theirs(hidden.unsqueeze(1), annotations, annotations, average_attn_weights=average)
        return context.squeeze(1), weights.squeeze(-2)

    context, weights = expected(average=False)
    torch.testing.assert_close(found.context, context)
    torch.testing.assert_close(found.maps.heads, weights)
    torch.testing.assert_close(found.maps.alpha, expected(average=True)[1])


def test_one_head_equals_scaled_dot_attention() -> None:
    sizes = small.sizes_for("multi_head")._replace(heads=1)
    one_head, plain = build_attention("multi_head", sizes), build_attention("scaled_dot", sizes)
    for name in ("query_layer", "key_layer"):
        getattr(plain, name).load_state_dict(getattr(one_head, name).state_dict())
    annotations, asked = small.make_annotations("multi_head"), small.make_query()
    maps = small.attend(one_head, asked, small.prepare(one_head, annotations)).maps
    torch.testing.assert_close(
        maps.alpha, small.attend(plain, asked, small.prepare(plain, annotations)).maps.alpha
    )
    torch.testing.assert_close(maps.heads, maps.alpha.unsqueeze(1))


def test_multi_head_map_is_mean_of_different_heads() -> None:
    maps = small.attend_as("multi_head").maps
    assert maps.heads.shape == (N, M, L)
    torch.testing.assert_close(maps.heads.sum(2), torch.ones(N, M))
    torch.testing.assert_close(maps.heads.mean(1), maps.alpha)
    assert ((maps.heads[:, 0] - maps.heads[:, 1]).abs().sum(1) > 1e-2).all()


def test_additive_sum_is_additive_with_unit_energy_weights() -> None:
    summed, weighted = small.make_attention("additive_sum"), small.make_attention("additive")
    weighted.load_state_dict({**summed.state_dict(), "energy_layer.weight": torch.ones(1, A)})
    annotations, asked = small.make_annotations("additive"), small.make_query()
    one, other = (small.attend(kind, asked, small.prepare(kind, annotations)) for kind in (summed, weighted))
    torch.testing.assert_close(one.maps.alpha, other.maps.alpha)
    torch.testing.assert_close(one.context, other.context)


def test_location_attention_ignores_annotations() -> None:
    attention, asked = small.make_attention("location"), small.make_query()
    one, other = (
        small.attend(
            attention, asked, small.prepare(attention, small.make_annotations("location", seed=seed))
        )
        for seed in (2, 12)
    )
    assert torch.equal(one.maps.alpha, other.maps.alpha)
    assert not torch.allclose(one.context, other.context)


@pytest.mark.parametrize("changed", ["word", "hidden"])
def test_location_attention_depends_on_word_and_state(changed: str) -> None:
    attention, asked = small.make_attention("location"), small.make_query()
    memory = small.prepare(attention, small.make_annotations("location"))
    other = asked._replace(**{changed: getattr(small.make_query(seed=11), changed)})
    one, another = (small.attend(attention, q, memory).maps.alpha for q in (asked, other))
    assert ((one - another).abs().sum(1) > 1e-2).all()


def centred_at(row_share: float, column_share: float) -> nn.Module:
    """Predictive local attention with its window at these shares of the grid, whatever the query."""
    attention = small.make_attention("local_p")
    with torch.no_grad():
        attention.centre_layer[2].weight.zero_()
        attention.centre_layer[2].bias.copy_(torch.tensor([row_share, column_share]).logit())
    return attention


def cells_within(row: float, column: float) -> Tensor:
    """Which cells a window of a quarter of the side each way has, (L,)."""
    reach = max(1, round(ROWS / 4)), max(1, round(COLUMNS / 4))
    cells = [divmod(cell, COLUMNS) for cell in range(L)]
    return torch.tensor([abs(r - row) <= reach[0] and abs(c - column) <= reach[1] for r, c in cells])


@pytest.mark.parametrize("shares", [(0.02, 0.03), (0.35, 0.9), (0.99, 0.98)])
def test_weights_outside_predicted_window_are_zero(shares: tuple[float, float]) -> None:
    attention = centred_at(*shares)
    memory = small.prepare(attention, small.make_annotations("local_p"))
    alpha = small.attend(attention, small.make_query(), memory).maps.alpha
    inside = cells_within(shares[0] * (ROWS - 1), shares[1] * (COLUMNS - 1))
    assert 0 < inside.sum() < L
    assert (alpha[:, ~inside] == 0).all()
    assert (alpha[:, inside] > 0).all()


@pytest.mark.parametrize("position", [0, 6, 14])
def test_weights_outside_scheduled_window_are_zero(position: int) -> None:
    attention = small.make_attention("local_m")
    memory = small.prepare(attention, small.make_annotations("local_m"))
    alpha = small.attend(attention, small.make_query(position=position), memory).maps.alpha
    [centre] = attention.centre(small.make_query(position=position))
    inside = cells_within(*centre.tolist())
    assert (alpha[:, ~inside] == 0).all()
    assert (alpha[:, inside] > 0).all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (3, 4), (7, 7), (8, 16), (14, 12)])
def test_scheduled_window_sweeps_whole_grid(rows: int, columns: int) -> None:
    attention = build_attention("local_m", small.sizes_for("local_m", rows=rows, columns=columns))
    memory = small.prepare(attention, torch.randn(1, rows * columns, D))

    def alpha_at(position: int) -> Tensor:
        return small.attend(attention, small.make_query(count=1, position=position), memory).maps.alpha

    sweep = torch.cat([alpha_at(position) for position in range(SWEEP)])
    assert (sweep > 0).any(dim=0).all()
    assert torch.equal(alpha_at(SWEEP), alpha_at(0))


def test_scheduled_window_moves_in_reading_order() -> None:
    attention = small.make_attention("local_m")
    centres = [attention.centre(small.make_query(position=at))[0].tolist() for at in range(SWEEP)]
    assert centres[0] == [ROWS / 6 - 0.5, COLUMNS / 8 - 0.5]
    assert centres == sorted(centres)
    assert len({tuple(centre) for centre in centres}) == SWEEP


def test_predicted_centre_stays_on_grid() -> None:
    attention = small.make_attention("local_p", scale=30.0)
    asked = small.make_query(count=200)
    centres = attention.centre(asked._replace(vector=asked.vector * 100))
    assert (centres >= 0).all()
    assert (centres <= torch.tensor([ROWS - 1, COLUMNS - 1])).all()
    assert (centres.std(dim=0) > 0.5).all()


def driven(sign: float) -> tuple[nn.Module, nn.Module]:
    """Sentinel attention whose sentinel scores as high or low as can be, and additive attention like it."""
    sentinel, plain = small.make_attention("sentinel"), small.make_attention("additive")
    with torch.no_grad():
        sentinel.energy_layer.weight.mul_(60)
        sentinel.sentinel_key.weight.zero_()
        sentinel.sentinel_key.bias.copy_(1000 * sign * sentinel.energy_layer.weight[0].sign())
    plain.load_state_dict({name: sentinel.state_dict()[name] for name in plain.state_dict()})
    return sentinel, plain


def test_sentinel_without_weight_is_additive_attention() -> None:
    sentinel, plain = driven(-1)
    annotations, asked = small.make_annotations("sentinel"), small.make_query()
    found = small.attend(sentinel, asked, small.prepare(sentinel, annotations))
    expected = small.attend(plain, asked, small.prepare(plain, annotations))
    assert (found.maps.sentinel < 1e-6).all()
    torch.testing.assert_close(found.context, expected.context)
    torch.testing.assert_close(found.maps.alpha, expected.maps.alpha)


def test_sentinel_with_all_weight_is_context() -> None:
    sentinel, plain = driven(+1)
    annotations, asked = small.make_annotations("sentinel"), small.make_query()
    found = small.attend(sentinel, asked, small.prepare(sentinel, annotations))
    known = (
        torch.sigmoid(sentinel.word_gate(asked.word) + sentinel.state_gate(asked.hidden)) * asked.cell.tanh()
    )
    assert (found.maps.sentinel > 1 - 1e-5).all()
    torch.testing.assert_close(found.context, sentinel.sentinel_value(known), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.maps.alpha.sum(1), torch.ones(N))
    expected = small.attend(plain, asked, small.prepare(plain, annotations)).maps.alpha
    torch.testing.assert_close(found.maps.alpha, expected)


@pytest.mark.parametrize("kind", ["none", "additive", "multi_head", "hard"])  # no, one and two keys; a draw
def test_memory_select_equals_memory_of_selected_rows(kind: str) -> None:
    attention, annotations = small.make_attention(kind), small.make_annotations(kind)
    rows = torch.tensor([2, 0, 0, 3, 2, 2])
    selected = small.prepare(attention, annotations, draw_seed=5).select(rows)
    anew = small.prepare(attention, annotations[rows], draw_seed=5)
    torch.testing.assert_close(selected, anew)
    assert isinstance(selected, Memory)


def make_maps(rows: int, seed: int) -> AttentionMaps:
    generator = torch.Generator().manual_seed(seed)
    heads = torch.rand(rows, M, L, generator=generator)
    chosen = torch.randint(0, L, (rows,), generator=generator)
    return AttentionMaps(
        alpha=heads.mean(1), heads=heads, chosen=chosen, beta=torch.rand(rows, generator=generator)
    )


def test_stacked_looks_are_blank_after_caption_ends() -> None:
    steps = [make_maps(rows, seed) for seed, rows in enumerate((4, 3, 1))]
    whole = AttentionMaps.stack(steps, rows=5)
    assert whole.sentinel is None
    assert whole.alpha.shape == (5, 3, L)
    assert whole.heads.shape == (5, 3, M, L)
    assert whole.beta.shape == whole.chosen.shape == (5, 3)
    for t, maps in enumerate(steps):
        count = len(maps.beta)
        for name, blank in (("alpha", 0), ("heads", 0), ("beta", 0), ("chosen", -1)):
            stacked = getattr(whole, name)
            assert torch.equal(stacked[:count, t], getattr(maps, name))
            assert (stacked[count:, t] == blank).all()
    assert whole.chosen.dtype == torch.long


def test_look_select_by_rows_or_row() -> None:
    maps = make_maps(4, 0)
    some, one = maps.select(torch.tensor([3, 3, 0])), maps.select(2)
    assert torch.equal(some.alpha, maps.alpha[[3, 3, 0]])
    assert some.sentinel is one.sentinel is None
    assert torch.equal(one.heads, maps.heads[2])
    assert one.beta.shape == one.chosen.shape == ()


def test_unknown_kind_error_lists_known_kinds() -> None:
    with pytest.raises(CheckpointError, match="telepathic") as raised:
        build_attention("telepathic", small.sizes_for("additive"))
    assert all(kind in str(raised.value) for kind in KINDS)


def test_dot_attention_requires_equal_widths() -> None:
    with pytest.raises(CheckpointError, match=f"{H} with .* {D};.*hidden_dim and annotation_dim equal.*gen"):
        build_attention("dot", small.sizes_for("dot")._replace(annotation=D))
    with pytest.raises(CheckpointError, match="query 'state'"):
        build_attention("dot", small.sizes_for("dot")._replace(query=H + E))


def test_heads_must_divide_attention_dim() -> None:
    with pytest.raises(CheckpointError, match=f"{A} .* 3 heads.*multiple of attention_heads"):
        build_attention("multi_head", small.sizes_for("multi_head")._replace(heads=3))
