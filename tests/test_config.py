"""ModelConfig: invalid values, and records written before a field existed."""

from typing import Any

import pytest

from model import CheckpointError, ModelConfig
from model.config import CELLS, GATES, GRIDS, MAX_IMAGE_SIZE, QUERIES

# What configurations held before there were several kinds of attention, cells and gates.
OLD_FIELDS = (
    "vocabulary_size",
    "encoder",
    "image_size",
    "mean",
    "std",
    "annotation_dim",
    "attention",
    "attention_dim",
    "embedding_dim",
    "hidden_dim",
    "dropout",
)


def test_config_round_trips_through_record(config: ModelConfig) -> None:
    assert ModelConfig.from_record(config.as_record()) == config


def test_old_record_gets_defaults(config: ModelConfig) -> None:
    record = {name: config.as_record()[name] for name in OLD_FIELDS}
    old = ModelConfig.from_record(record)
    assert old == config
    assert (old.cell, old.gate, old.query, old.grid, old.grid_layers) == (
        "lstm",
        "scalar",
        "state",
        "last",
        0,
    )


CHOICES = {"cell": CELLS, "gate": GATES, "query": QUERIES, "grid": GRIDS}


@pytest.mark.parametrize(
    ("name", "value"), [*((name, "telepathic") for name in CHOICES), ("cell", None), ("cell", ["lstm"])]
)
def test_invalid_choice_error_lists_choices(config: ModelConfig, name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"has {name} = ") as raised:
        ModelConfig.from_record({**config.as_record(), name: value})
    assert all(choice in str(raised.value) for choice in CHOICES[name])


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_accepted(config: ModelConfig, name: str) -> None:
    for value in CHOICES[name]:
        assert getattr(ModelConfig.from_record({**config.as_record(), name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("attention_heads", "attention_dim", "annotation_dim", "hidden_dim")),
        *(("hidden_dim", value) for value in (2.0, "4", None, True)),
    ],
)
def test_invalid_size_is_named(config: ModelConfig, name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"has {name} = .* whole number from 1"):
        ModelConfig.from_record({**config.as_record(), name: value})


@pytest.mark.parametrize("size", [0, MAX_IMAGE_SIZE + 1, 1_000_000])
def test_invalid_image_size_is_named(config: ModelConfig, size: int) -> None:
    with pytest.raises(CheckpointError, match=f"image_size = {size}; .* from 1 to {MAX_IMAGE_SIZE}"):
        ModelConfig.from_record({**config.as_record(), "image_size": size})


@pytest.mark.parametrize("value", [-1, 1.0])
def test_invalid_grid_layers_are_named(config: ModelConfig, value: object) -> None:
    with pytest.raises(CheckpointError, match="has grid_layers = .* whole number from 0"):
        ModelConfig.from_record({**config.as_record(), "grid_layers": value})


@pytest.mark.parametrize(
    "sizes", [{"annotation_dim": 12, "attention_heads": 8}, {"annotation_dim": 6, "attention_heads": 3}]
)
def test_grid_layers_need_divisible_annotation_dim(config: ModelConfig, sizes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="multiple of 4 and of attention_heads"):
        ModelConfig.from_record({**config.as_record(), **sizes, "grid_layers": 1})
    ModelConfig.from_record({**config.as_record(), **sizes})  # without the layers nothing is wrong with them


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.4"])
def test_invalid_dropout_is_named(config: ModelConfig, value: object) -> None:
    with pytest.raises(CheckpointError, match="dropout"):
        ModelConfig.from_record({**config.as_record(), "dropout": value})
