"""Properties that every kind of attention has, those of single kinds, and what is refused.

``test_attention_formulas`` compares the numbers, ``test_attention_hard`` has what is drawn.
"""

from __future__ import annotations

import math

import pytest
import torch
from support import attention_kinds as small
from support.attention_kinds import COLUMNS, KINDS, ROWS, WITH_MAPS, A, D, E, H, L, M, N
from torch import Tensor, nn

from model.attention import Look, Memory, build_attention
from model.attention.interface import even_weights, mean_annotation, weighted_sum
from model.attention.local import STOPS
from model.errors import CheckpointError

SWEEP = math.prod(STOPS)  # words in which local_m passes over the whole grid
# Weights that belong to a place on the grid, whatever is there: the other cells cannot change places.
PLACE_AWARE = ("location", "local_m", "local_p")
# No map at all, and always the same one.
QUERY_INDEPENDENT = ("none", "uniform")
# A bias on the keys adds q . b to every score alike, which the softmax takes out again; the layer has it
# because torch.nn.MultiheadAttention has.
WITHOUT_EFFECT = {"scaled_dot": {"key_layer.bias"}, "multi_head": {"key_layer.bias"}}


@pytest.mark.parametrize("kind", WITH_MAPS)
def test_weights_are_nonnegative_and_sum_to_one(kind: str) -> None:
    attended = small.look_at(kind)
    alpha = attended.look.alpha
    assert alpha.shape == (N, L)
    assert attended.context.shape == (N, small.sizes_for(kind).annotation)
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(1), torch.ones(N))


def test_no_attention_has_context_but_no_map() -> None:
    attended = small.look_at("none")
    assert attended.context.shape == (N, D)
    assert attended.look == Look()


@pytest.mark.parametrize("kind", WITH_MAPS)
def test_masked_cells_get_no_weight(kind: str) -> None:
    mask = small.make_mask()
    look = small.look_at(kind, mask=mask).look
    for weights in [look.alpha] if look.heads is None else [look.alpha, *look.heads.unbind(1)]:
        assert (weights[~mask] == 0).all()
        torch.testing.assert_close(weights.sum(1), torch.ones(N))
    if look.chosen is not None:
        assert mask.gather(1, look.chosen.unsqueeze(1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_masked_annotations_have_no_effect(kind: str) -> None:
    attention, asked, mask = small.make_attention(kind), small.make_query(), small.make_mask()
    annotations = small.make_annotations(kind)
    other = annotations.masked_fill(~mask.unsqueeze(2), 7.0)
    one, same = (attention(asked, small.remember(attention, a, mask)) for a in (annotations, other))
    torch.testing.assert_close(one.context, same.context)
    if kind != "none":
        torch.testing.assert_close(one.look.alpha, same.look.alpha)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*QUERY_INDEPENDENT, "local_m")])
def test_weights_depend_on_query(kind: str) -> None:
    attention = small.make_attention(kind)
    memory = small.remember(attention, small.make_annotations(kind))
    one, other = (attention(small.make_query(seed=seed), memory).look.alpha for seed in (1, 11))
    assert ((one - other).abs().sum(1) > 1e-2).all()


def test_scheduled_window_depends_on_query_and_position() -> None:
    attention = small.make_attention("local_m")
    memory = small.remember(attention, small.make_annotations("local_m"))
    look = attention(small.make_query(), memory).look.alpha
    for asked in (small.make_query(seed=11), small.make_query(position=5)):
        assert ((attention(asked, memory).look.alpha - look).abs().sum(1) > 1e-2).all()


@pytest.mark.parametrize("kind", QUERY_INDEPENDENT)
def test_query_independent_kinds_ignore_query(kind: str) -> None:
    attention = small.make_attention(kind)
    memory = small.remember(attention, small.make_annotations(kind))
    one, other = (attention(small.make_query(seed=seed, position=seed), memory) for seed in (1, 11))
    assert torch.equal(one.context, other.context)


@pytest.mark.parametrize("kind", [kind for kind in WITH_MAPS if kind not in ("uniform", "location")])
def test_previous_word_matters_only_if_in_query(kind: str) -> None:
    for query, has_word in (("state", False), ("state_and_word", True)):
        attention = small.make_attention(kind, query)
        memory = small.remember(attention, small.make_annotations(kind, query))
        asked, other = small.make_query(query), small.make_query(query, seed=11)
        vector = asked.hidden if query == "state" else torch.cat((asked.hidden, other.word), dim=1)
        changed = asked._replace(word=other.word, vector=vector)
        same = torch.equal(attention(asked, memory).look.alpha, attention(changed, memory).look.alpha)
        assert same is not has_word


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in PLACE_AWARE])
def test_attention_is_permutation_equivariant(kind: str) -> None:
    attention, asked, mask = small.make_attention(kind), small.make_query(), small.make_mask()
    annotations = small.make_annotations(kind)
    order = torch.randperm(L, generator=torch.Generator().manual_seed(9))
    straight = attention(asked, small.remember(attention, annotations, mask))
    permuted = attention(asked, small.remember(attention, annotations[:, order], mask[:, order]))
    torch.testing.assert_close(permuted.context, straight.context)
    if kind != "none":
        torch.testing.assert_close(permuted.look.alpha, straight.look.alpha[:, order])
    if straight.look.chosen is not None:
        assert torch.equal(order[permuted.look.chosen], straight.look.chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_batch_invariant(kind: str) -> None:
    attention, asked = small.make_attention(kind), small.make_query()
    annotations, mask = small.make_annotations(kind), small.make_mask()
    together = attention(asked, small.remember(attention, annotations, mask))
    for row in range(N):
        only = slice(row, row + 1)
        memory = small.remember(attention, annotations[only], mask[only])
        alone = attention(small.select_query(asked, only), memory)
        torch.testing.assert_close(alone.context, together.context[only])
        for one, all_of_them in zip(alone.look, together.look, strict=True):
            assert (one is None) == (all_of_them is None)
            if one is not None:
                torch.testing.assert_close(one, all_of_them[only])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_parameters_and_annotations(kind: str) -> None:
    torch.manual_seed(8)
    attention = small.make_attention(kind).train()
    annotations = small.make_annotations(kind).requires_grad_()
    attended = attention(small.make_query(), small.remember(attention, annotations))
    loss = attended.context.square().sum()
    if kind == "hard":  # a drawn cell passes no gradient to its weight; REINFORCE does, through log alpha
        loss = loss + attended.look.alpha.log().square().sum()
    loss.backward()
    assert annotations.grad.abs().sum() > 0
    largest = {name: float(p.grad.abs().max()) for name, p in attention.named_parameters()}
    assert {name for name, size in largest.items() if size < 1e-4} == WITHOUT_EFFECT.get(kind, set())


@pytest.mark.parametrize("kind", WITH_MAPS)
def test_softmax_is_float32_under_autocast(kind: str) -> None:
    attention = small.make_attention(kind, scale=1.0)
    annotations, asked = small.make_annotations(kind), small.make_query()
    exact = attention(asked, small.remember(attention, annotations))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attention(asked, small.remember(attention, annotations))
    for weights in filter(lambda seen: seen is not None, (mixed.look.alpha, mixed.look.heads)):
        assert weights.dtype == torch.float32
        # bfloat16 would be off by a hundredth
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.look.alpha, exact.look.alpha, atol=0.02, rtol=0.1)
    assert mixed.context.isfinite().all()


@pytest.mark.parametrize("is_masked", [False, True], ids=["everywhere", "masked"])
def test_scaled_dot_attention_equals_torch(is_masked: bool) -> None:
    attention, asked = small.make_attention("scaled_dot"), small.make_query()
    annotations, mask = small.make_annotations("scaled_dot"), small.make_mask() if is_masked else None
    found = attention(asked, small.remember(attention, annotations, mask))
    expected = nn.functional.scaled_dot_product_attention(
        attention.query_layer(asked.vector).unsqueeze(1),
        attention.key_layer(annotations),
        attention.value_layer(annotations),
        attn_mask=None if mask is None else mask.unsqueeze(1),
    )
    torch.testing.assert_close(found.context, expected.squeeze(1))


@pytest.mark.parametrize(("heads", "is_masked"), [(1, False), (2, True), (4, False)])
def test_multi_head_attention_equals_torch(heads: int, is_masked: bool) -> None:
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
    mask = small.make_mask() if is_masked else None
    asked = small.make_query()._replace(vector=hidden)
    found = ours(asked, small.remember(ours, annotations, mask))

    def expected(*, average: bool) -> tuple[Tensor, Tensor]:
        blocked = None if mask is None else ~mask
        context, weights = theirs(
            hidden.unsqueeze(1), annotations, annotations, blocked, average_attn_weights=average
        )
        return context.squeeze(1), weights.squeeze(-2)

    context, weights = expected(average=False)
    torch.testing.assert_close(found.context, context)
    torch.testing.assert_close(found.look.heads, weights)
    torch.testing.assert_close(found.look.alpha, expected(average=True)[1])


def test_one_head_equals_scaled_dot_attention() -> None:
    sizes = small.sizes_for("multi_head")._replace(heads=1)
    one_head, plain = build_attention("multi_head", sizes), build_attention("scaled_dot", sizes)
    for name in ("query_layer", "key_layer"):
        getattr(plain, name).load_state_dict(getattr(one_head, name).state_dict())
    annotations, asked = small.make_annotations("multi_head"), small.make_query()
    look = one_head(asked, small.remember(one_head, annotations)).look
    torch.testing.assert_close(look.alpha, plain(asked, small.remember(plain, annotations)).look.alpha)
    torch.testing.assert_close(look.heads, look.alpha.unsqueeze(1))


def test_multi_head_map_is_mean_of_different_heads() -> None:
    look = small.look_at("multi_head").look
    assert look.heads.shape == (N, M, L)
    torch.testing.assert_close(look.heads.sum(2), torch.ones(N, M))
    torch.testing.assert_close(look.heads.mean(1), look.alpha)
    assert ((look.heads[:, 0] - look.heads[:, 1]).abs().sum(1) > 1e-2).all()


def test_additive_sum_is_additive_with_unit_energy_weights() -> None:
    summed, weighted = small.make_attention("additive_sum"), small.make_attention("additive")
    weighted.load_state_dict({**summed.state_dict(), "energy_layer.weight": torch.ones(1, A)})
    annotations, asked = small.make_annotations("additive"), small.make_query()
    one, other = (kind(asked, small.remember(kind, annotations)) for kind in (summed, weighted))
    torch.testing.assert_close(one.look.alpha, other.look.alpha)
    torch.testing.assert_close(one.context, other.context)


def test_location_attention_ignores_annotations() -> None:
    attention, asked = small.make_attention("location"), small.make_query()
    one, other = (
        attention(asked, small.remember(attention, small.make_annotations("location", seed=seed)))
        for seed in (2, 12)
    )
    assert torch.equal(one.look.alpha, other.look.alpha)
    assert not torch.allclose(one.context, other.context)


@pytest.mark.parametrize("changed", ["word", "hidden"])
def test_location_attention_depends_on_word_and_state(changed: str) -> None:
    attention, asked = small.make_attention("location"), small.make_query()
    memory = small.remember(attention, small.make_annotations("location"))
    other = asked._replace(**{changed: getattr(small.make_query(seed=11), changed)})
    one, another = (attention(q, memory).look.alpha for q in (asked, other))
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
    places = [divmod(cell, COLUMNS) for cell in range(L)]
    return torch.tensor([abs(r - row) <= reach[0] and abs(c - column) <= reach[1] for r, c in places])


@pytest.mark.parametrize("shares", [(0.02, 0.03), (0.35, 0.9), (0.99, 0.98)])
def test_weights_outside_predicted_window_are_zero(shares: tuple[float, float]) -> None:
    attention = centred_at(*shares)
    memory = small.remember(attention, small.make_annotations("local_p"))
    alpha = attention(small.make_query(), memory).look.alpha
    inside = cells_within(shares[0] * (ROWS - 1), shares[1] * (COLUMNS - 1))
    assert 0 < inside.sum() < L
    assert (alpha[:, ~inside] == 0).all()
    assert (alpha[:, inside] > 0).all()


@pytest.mark.parametrize("position", [0, 6, 14])
def test_weights_outside_scheduled_window_are_zero(position: int) -> None:
    attention = small.make_attention("local_m")
    memory = small.remember(attention, small.make_annotations("local_m"))
    alpha = attention(small.make_query(position=position), memory).look.alpha
    [centre] = attention.centre(small.make_query(position=position))
    inside = cells_within(*centre.tolist())
    assert (alpha[:, ~inside] == 0).all()
    assert (alpha[:, inside] > 0).all()


@pytest.mark.parametrize("kind", ["local_m", "local_p"])
def test_fully_masked_window_still_has_weights(kind: str) -> None:
    attention = small.make_attention(kind) if kind == "local_m" else centred_at(0.01, 0.01)
    mask = torch.zeros(N, ROWS, COLUMNS, dtype=torch.bool)
    mask[:, :, 4:] = True  # the window is about the first cell
    mask = mask.flatten(1)
    memory = small.remember(attention, small.make_annotations(kind), mask)
    attended = attention(small.make_query(position=0), memory)
    assert (attended.look.alpha[~mask] == 0).all()
    torch.testing.assert_close(attended.look.alpha.sum(1), torch.ones(N))
    assert attended.context.isfinite().all()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (3, 4), (7, 7), (8, 16), (14, 12)])
def test_scheduled_window_sweeps_whole_grid(rows: int, columns: int) -> None:
    attention = build_attention("local_m", small.sizes_for("local_m", rows=rows, columns=columns))
    memory = small.remember(attention, torch.randn(1, rows * columns, D))

    def look(position: int) -> Tensor:
        return attention(small.make_query(count=1, position=position), memory).look.alpha

    sweep = torch.cat([look(position) for position in range(SWEEP)])
    assert (sweep > 0).any(dim=0).all()
    assert torch.equal(look(SWEEP), look(0))


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
    found = sentinel(asked, small.remember(sentinel, annotations))
    expected = plain(asked, small.remember(plain, annotations))
    assert (found.look.sentinel < 1e-6).all()
    torch.testing.assert_close(found.context, expected.context)
    torch.testing.assert_close(found.look.alpha, expected.look.alpha)


def test_sentinel_with_all_weight_is_context() -> None:
    sentinel, plain = driven(+1)
    annotations, asked = small.make_annotations("sentinel"), small.make_query()
    found = sentinel(asked, small.remember(sentinel, annotations))
    known = (
        torch.sigmoid(sentinel.word_gate(asked.word) + sentinel.state_gate(asked.hidden)) * asked.cell.tanh()
    )
    assert (found.look.sentinel > 1 - 1e-5).all()
    torch.testing.assert_close(found.context, sentinel.sentinel_value(known), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.look.alpha.sum(1), torch.ones(N))
    expected = plain(asked, small.remember(plain, annotations)).look.alpha
    torch.testing.assert_close(found.look.alpha, expected)


def test_mask_leaves_sentinel() -> None:
    one_cell = torch.zeros(N, L, dtype=torch.bool)
    one_cell[:, 3] = True
    look = small.look_at("sentinel", mask=one_cell).look
    assert ((look.sentinel > 0) & (look.sentinel < 1)).all()
    assert (look.alpha[:, 3] == 1).all()


def test_uniform_weights_give_mean_annotation() -> None:
    annotations, mask = small.make_annotations("uniform"), small.make_mask()
    everywhere = weighted_sum(even_weights(annotations, None), annotations)
    torch.testing.assert_close(everywhere, annotations.mean(1))
    torch.testing.assert_close(mean_annotation(annotations, None), annotations.mean(1))
    by_hand = torch.stack([row[allowed].mean(0) for row, allowed in zip(annotations, mask, strict=True)])
    torch.testing.assert_close(weighted_sum(even_weights(annotations, mask), annotations), by_hand)
    torch.testing.assert_close(mean_annotation(annotations, mask), by_hand)


@pytest.mark.parametrize("kind", ["none", "additive", "multi_head", "hard"])  # no, one and two keys; a draw
def test_memory_select_equals_memory_of_selected_rows(kind: str) -> None:
    attention, annotations, mask = small.make_attention(kind), small.make_annotations(kind), small.make_mask()
    rows = torch.tensor([2, 0, 0, 3, 2, 2])
    selected = small.remember(attention, annotations, mask, draw_seed=5).select(rows)
    anew = small.remember(attention, annotations[rows], mask[rows], draw_seed=5)
    torch.testing.assert_close(selected, anew)
    assert isinstance(selected, Memory)


def test_memory_select_without_mask() -> None:
    memory = Memory(torch.randn(N, L, D), (), None, None)
    assert memory.select(slice(2)).mask is None
    assert len(memory.select(slice(2)).annotations) == 2


def make_look(rows: int, seed: int) -> Look:
    generator = torch.Generator().manual_seed(seed)
    heads = torch.rand(rows, M, L, generator=generator)
    chosen = torch.randint(0, L, (rows,), generator=generator)
    return Look(alpha=heads.mean(1), heads=heads, chosen=chosen, beta=torch.rand(rows, generator=generator))


def test_stacked_looks_are_blank_after_caption_ends() -> None:
    looks = [make_look(rows, seed) for seed, rows in enumerate((4, 3, 1))]
    whole = Look.stack(looks, rows=5)
    assert whole.sentinel is None
    assert whole.alpha.shape == (5, 3, L)
    assert whole.heads.shape == (5, 3, M, L)
    assert whole.beta.shape == whole.chosen.shape == (5, 3)
    for t, look in enumerate(looks):
        count = len(look.beta)
        for name, blank in (("alpha", 0), ("heads", 0), ("beta", 0), ("chosen", -1)):
            stacked = getattr(whole, name)
            assert torch.equal(stacked[:count, t], getattr(look, name))
            assert (stacked[count:, t] == blank).all()
    assert whole.chosen.dtype == torch.long


def test_look_select_by_rows_or_row() -> None:
    look = make_look(4, 0)
    some, one = look.select(torch.tensor([3, 3, 0])), look.select(2)
    assert torch.equal(some.alpha, look.alpha[[3, 3, 0]])
    assert some.sentinel is one.sentinel is None
    assert torch.equal(one.heads, look.heads[2])
    assert one.beta.shape == one.chosen.shape == ()


def test_unknown_kind_error_lists_known_kinds() -> None:
    with pytest.raises(CheckpointError, match="telepathic") as raised:
        build_attention("telepathic", small.sizes_for("additive"))
    assert all(kind in str(raised.value) for kind in KINDS)


def test_dot_attention_requires_equal_widths() -> None:
    with pytest.raises(CheckpointError, match=f"{H} units .* {D}.*hidden_dim and annotation_dim equal.*gen"):
        build_attention("dot", small.sizes_for("dot")._replace(annotation=D))
    with pytest.raises(CheckpointError, match="query 'state'"):
        build_attention("dot", small.sizes_for("dot")._replace(query=H + E))


def test_heads_must_divide_attention_dim() -> None:
    with pytest.raises(CheckpointError, match=f"{A} units .* 3 equal heads.*multiple of attention_heads"):
        build_attention("multi_head", small.sizes_for("multi_head")._replace(heads=3))
