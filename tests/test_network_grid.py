"""Self-attention layers over the grid, position codes and joined grids."""

from dataclasses import replace

import pytest
import torch
from conftest import random_network

from model import CheckpointError, ModelConfig
from model.network import CaptionNetwork, GridLayers, position_code

ROWS, COLUMNS, WIDTH, HEADS = 3, 5, 8, 2
L = ROWS * COLUMNS


def make_layers(count: int = 1, seed: int = 1, dropout: float = 0.0) -> GridLayers:
    torch.manual_seed(seed)
    config = ModelConfig(
        vocabulary_size=11, annotation_dim=WIDTH, attention_heads=HEADS, grid_layers=count, dropout=dropout
    )
    return GridLayers(config, ROWS, COLUMNS).eval()


def make_annotations(batch: int = 4, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, L, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns", "width"), [(3, 5, 4), (7, 7, 8), (14, 14, 512), (1, 9, 12)])
def test_position_codes_are_distinct(rows: int, columns: int, width: int) -> None:
    code = position_code(rows, columns, width)
    assert code.shape == (rows * columns, width)
    assert code.abs().max() <= 1
    distances = torch.cdist(code, code) + 10 * torch.eye(rows * columns)
    assert distances.min() > 0.1


def test_position_code_separates_rows_and_columns() -> None:
    code = position_code(ROWS, COLUMNS, WIDTH).view(ROWS, COLUMNS, WIDTH)
    row, column = code[..., : WIDTH // 2], code[..., WIDTH // 2 :]
    assert torch.equal(row, row[:, :1].expand_as(row))
    assert torch.equal(column, column[:1].expand_as(column))
    assert torch.equal(row[:, 0], column[0, :ROWS])  # a row counts as a column does


def test_neighbours_have_similar_position_codes() -> None:
    code = position_code(7, 7, 64)
    near, far = (code[0] - code[1]).norm(), (code[0] - code[48]).norm()
    assert near < far


@pytest.mark.parametrize("count", [1, 2])
@torch.no_grad()
def test_every_cell_attends_to_every_other(count: int) -> None:
    layers, annotations = make_layers(count), make_annotations(1)
    before = layers(annotations)
    for cell in range(L):
        changed = annotations.clone()
        changed[0, cell] += torch.linspace(-1, 1, WIDTH)  # a constant the layer would normalize away
        moved = (layers(changed) - before).abs().amax(dim=2)[0]
        assert (moved > 1e-6).all()


@torch.no_grad()
def test_grid_layers_depend_on_position() -> None:
    layers, annotations = make_layers(), make_annotations()
    order = torch.randperm(L, generator=torch.Generator().manual_seed(3))
    with_places = layers(annotations[:, order])
    assert not torch.allclose(with_places, layers(annotations)[:, order], atol=1e-3)
    layers.position_code.zero_()
    torch.testing.assert_close(layers(annotations[:, order]), layers(annotations)[:, order])


@torch.no_grad()
def test_grid_layers_are_batch_invariant() -> None:
    layers, annotations = make_layers(2), make_annotations()
    together = layers(annotations)
    assert together.shape == annotations.shape
    for row in range(len(annotations)):
        torch.testing.assert_close(layers(annotations[row : row + 1]), together[row : row + 1])


def test_inference_equals_training_computation() -> None:
    """Torch has a faster way of its own where no gradients are wanted."""
    layers, annotations = make_layers(2), make_annotations()
    with_gradients = layers(annotations)
    with torch.inference_mode():
        torch.testing.assert_close(layers(annotations), with_gradients, atol=1e-5, rtol=1e-5)


def test_gradients_reach_grid_parameters() -> None:
    layers = make_layers(2)
    layers(make_annotations()).pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-6 for p in layers.parameters())


def test_dropout_only_while_training() -> None:
    layers, annotations = make_layers(dropout=0.5), make_annotations()
    assert torch.equal(layers(annotations), layers(annotations))
    layers.train()
    assert not torch.equal(layers(annotations), layers(annotations))


@pytest.fixture
def grid_config(config: ModelConfig) -> ModelConfig:
    return replace(config, annotation_dim=WIDTH, attention_heads=HEADS, grid_layers=1)


@torch.no_grad()
def test_network_attends_to_grid_layer_output(grid_config: ModelConfig) -> None:
    network = random_network(grid_config)
    features = torch.randn(2, 25, network.encoder.feature_dim, generator=torch.Generator().manual_seed(0))
    expected = network.grid_layers(network.project(features))
    torch.testing.assert_close(network.encode_features(features).annotations, expected)
    assert not torch.allclose(expected, network.project(features), atol=0.1)


def test_no_grid_layers_have_no_weights(config: ModelConfig) -> None:
    assert not [name for name, _ in CaptionNetwork(config).named_parameters() if "grid" in name]


def test_position_code_is_not_in_state_dict(grid_config: ModelConfig) -> None:
    network = CaptionNetwork(grid_config)
    assert not [name for name in network.state_dict() if "position_code" in name]
    assert network.grid_layers.position_code.shape == (25, WIDTH)


@pytest.mark.parametrize("changes", [{"annotation_dim": 6}, {"annotation_dim": 12, "attention_heads": 8}])
def test_indivisible_width_is_refused(grid_config: ModelConfig, changes: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match="multiple of 4 and of attention_heads"):
        ModelConfig.from_record({**grid_config.as_record(), **changes})


@pytest.fixture
def joined_network(config: ModelConfig) -> CaptionNetwork:
    """Its annotations lie on a grid of ten by ten, twice the encoder's last."""
    return random_network(replace(config, grid="joined"))


@torch.no_grad()
def test_joined_grid_starts_as_upsampled_last_grid(joined_network: CaptionNetwork) -> None:
    """The finer features say nothing before they have learned to."""
    project = joined_network.project
    features = torch.randn(2, *joined_network.encoder.feature_shape)
    coarse = project.last_layer(features[:, :, : joined_network.encoder.feature_dim])  # (B, 25, D)
    blended = torch.nn.functional.interpolate(
        coarse.transpose(1, 2).unflatten(2, (5, 5)), scale_factor=2, mode="bilinear"
    )
    expected = project.norm(blended.flatten(2).transpose(1, 2))
    torch.testing.assert_close(joined_network.encode_features(features).annotations, expected)


@torch.no_grad()
def test_joined_grid_cells_keep_their_features(joined_network: CaptionNetwork) -> None:
    """What the encoder packed four to a cell comes apart again where it was."""
    project, encoder = joined_network.project, joined_network.encoder
    torch.nn.init.normal_(project.fine_layer.weight)
    fine = torch.randn(1, encoder.fine_dim, 10, 10)
    last = torch.randn(1, encoder.feature_dim, 5, 5)

    def annotations(fine: torch.Tensor) -> torch.Tensor:
        joined = torch.cat((last, torch.nn.functional.pixel_unshuffle(fine, 2)), dim=1)
        return project(joined.flatten(2).transpose(1, 2))

    before = annotations(fine)
    assert before.shape == (1, 100, project.norm.normalized_shape[0])
    for cell in (0, 1, 13, 57, 99):
        changed = fine.clone()
        changed[0, :, cell // 10, cell % 10] += 3
        moved = (annotations(changed) - before).abs().amax(dim=2)[0] > 1e-6
        assert moved.nonzero().flatten().tolist() == [cell]


@torch.no_grad()
def test_joined_grid_attention_covers_all_cells(joined_network: CaptionNetwork) -> None:
    memory = joined_network.encode(torch.randn(2, 3, 40, 40))
    decoder = joined_network.decoder
    step = decoder.step(torch.tensor([1, 1]), decoder.initial_state(memory), memory)
    assert step.maps.alpha.shape == (2, 100)
