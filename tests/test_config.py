"""The configuration of a network: what may stand in it, and what an older one lacks."""

from __future__ import annotations

from typing import Any

import pytest

from model import CheckpointError, ModelConfig
from model.config import CELLS, GATES, GRIDS, QUERIES

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


def test_a_configuration_comes_back_from_its_record(config: ModelConfig) -> None:
    assert ModelConfig.from_record(config.as_record()) == config


def test_a_record_without_the_newer_fields_is_the_network_it_was_written_for(config: ModelConfig) -> None:
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


@pytest.mark.parametrize(
    ("name", "choices"), [("cell", CELLS), ("gate", GATES), ("query", QUERIES), ("grid", GRIDS)]
)
@pytest.mark.parametrize("value", ["telepathic", "", None, 3, ["lstm"]])
def test_a_word_that_is_no_choice_is_refused_with_the_choices(
    config: ModelConfig, name: str, choices: tuple[str, ...], value: object
) -> None:
    with pytest.raises(CheckpointError, match=f"has {name} = ") as raised:
        ModelConfig.from_record({**config.as_record(), name: value})
    assert all(choice in str(raised.value) for choice in choices)


@pytest.mark.parametrize("name", ["cell", "gate", "query"])
def test_every_choice_is_accepted(config: ModelConfig, name: str) -> None:
    for value in {"cell": CELLS, "gate": GATES, "query": QUERIES}[name]:
        assert getattr(ModelConfig.from_record({**config.as_record(), name: value}), name) == value


@pytest.mark.parametrize("name", ["attention_heads", "attention_dim", "annotation_dim", "hidden_dim"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "4", None, True])
def test_a_size_that_is_none_is_refused_by_name(config: ModelConfig, name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"has {name} = .* positive whole number"):
        ModelConfig.from_record({**config.as_record(), name: value})


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, False])
def test_a_number_of_grid_layers_that_is_none_is_refused_by_name(config: ModelConfig, value: object) -> None:
    with pytest.raises(CheckpointError, match="has grid_layers = .* whole number from 0"):
        ModelConfig.from_record({**config.as_record(), "grid_layers": value})


@pytest.mark.parametrize(
    "sizes",
    [
        {"annotation_dim": 12, "attention_heads": 8},
        {"annotation_dim": 6, "attention_heads": 2},
        {"annotation_dim": 6, "attention_heads": 3},
    ],
)
def test_grid_layers_that_cannot_have_these_sizes_are_refused_with_what_would_do(
    config: ModelConfig, sizes: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match="multiple of 4 and of attention_heads"):
        ModelConfig.from_record({**config.as_record(), **sizes, "grid_layers": 1})
    ModelConfig.from_record({**config.as_record(), **sizes})  # without the layers nothing is wrong with them


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.4", None])
def test_a_dropout_that_is_none_is_refused_by_name(config: ModelConfig, value: object) -> None:
    with pytest.raises(CheckpointError, match="dropout"):
        ModelConfig.from_record({**config.as_record(), "dropout": value})
