"""Command-line options made from the fields of configurations, each with its default and its meaning."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import torch

from model import DecodingOptions, ModelConfig
from model.attention import ATTENTION_KINDS
from model.config import CELLS, GATES, GRIDS, QUERIES, TOKENS
from model.encoder import encoder_names
from training.data.caption_files import FORMAT_NAMES
from training.engine.config import FINE_TUNING_MIN_COUNT, RunOptions, TrainConfig, as_option
from training.engine.losses import DOUBLY_STOCHASTIC_TARGETS

CHOICES: dict[str, Collection[str]] = {
    "tokens": TOKENS,
    "encoder": encoder_names(),
    "attention": ATTENTION_KINDS,
    "grid": GRIDS,
    "query": QUERIES,
    "cell": CELLS,
    "gate": GATES,
    "doubly_stochastic_target": DOUBLY_STOCHASTIC_TARGETS,
}
TOO_MANY_TO_LIST = 20


def add_network_options(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """The fields of ``ModelConfig`` that are a user's to choose, but those ``without``."""
    group = parser.add_argument_group("network")
    for field in network_fields():
        if field.name not in without:
            _add_field(group, field, default=str(field.default))


def add_recipe_options(
    parser: argparse.ArgumentParser, *, without: Collection[str] = (), **defaults: Any
) -> None:
    """The fields of ``TrainConfig`` but those ``without``, some with other ``defaults``."""
    group = parser.add_argument_group("recipe")
    for field in fields(TrainConfig):
        if field.name not in without:
            _add_field(group, field, default=str(defaults.get(field.name, field.default)))


def chosen_network(chosen: argparse.Namespace) -> dict[str, Any]:
    """What ``add_network_options`` read: those fields of ``ModelConfig`` that were given."""
    return {
        field.name: getattr(chosen, field.name) for field in network_fields() if hasattr(chosen, field.name)
    }


def chosen_recipe(chosen: argparse.Namespace, **defaults: Any) -> TrainConfig:
    """What ``add_recipe_options`` read, and ``defaults`` of what was not given.

    Raises:
        OptionsError: a value contradicts another, or is outside its range.
    """
    given = {
        field.name: getattr(chosen, field.name)
        for field in fields(TrainConfig)
        if hasattr(chosen, field.name)
    }
    return TrainConfig(**(defaults | given))


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """What the training runs on."""
    add = parser.add_argument_group("hardware").add_argument
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="bf16 is faster where the hardware has it (recent server CPUs and GPUs); fp16 is for older GPUs",
    )
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: a GPU if there is one",
    )
    add(
        "--accumulate",
        type=_whole_number,
        default=1,
        metavar="N",
        help="split each step into N batches when memory is short: the same but for what is drawn, default 1",
    )
    add("--workers", type=_whole_number, default=1, metavar="N", help="reading processes, default 1")


def add_captioner_options(parser: argparse.ArgumentParser) -> None:
    """Which captioner to measure, how it searches and on what it runs."""
    add = parser.add_argument_group("captioner").add_argument
    add(
        "--checkpoint",
        type=Path,
        default=Path("checkpoints/default"),
        metavar="DIR",
        help="the captioner, default: %(default)s",
    )
    add("--beam-size", type=int, default=3, metavar="N", help="1 (greedy) to 10, default 3")
    add(
        "--length-penalty",
        type=float,
        default=DecodingOptions.length_penalty,
        metavar="X",
        help="captions rank by log-probability / length ** X, 0 (the shortest) to 2, default %(default)s",
    )
    add(
        "--phrase-weight",
        type=float,
        default=DecodingOptions.phrase_weight,
        metavar="X",
        help="plus X times their agreement with the phrases people would use, 0 to 100, default %(default)s; "
        "nothing in a captioner that has learnt no phrases",
    )
    add("--device", default="cpu", help="a torch device, default cpu")


def chosen_decoding(chosen: argparse.Namespace) -> DecodingOptions:
    """How to search, as ``add_captioner_options`` read it.

    Raises:
        OptionsError: a value is outside its range.
    """
    names = ("beam_size", "length_penalty", "phrase_weight")
    return DecodingOptions(**{name: getattr(chosen, name) for name in names})


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """What to train on, and from which weights the encoder starts."""
    group = parser.add_argument_group("data")
    add_set_options(group)
    add = group.add_argument
    add(
        "--skip-problems",
        action="store_true",
        help="train without the photos that python -m training.check lists, instead of not at all",
    )
    add(
        "--min-count",
        type=int,
        metavar="N",
        help=f"words rarer than this become unknown, default {RunOptions.min_count}, in fine-tuning "
        f"{FINE_TUNING_MIN_COUNT}",
    )
    add(
        "--encoder-weights",
        default="published",
        metavar="FILE",
        help="a file of pretrained weights, 'published' for torchvision's own (default), or 'none'",
    )


def add_set_options(group: argparse._ArgumentGroup) -> None:
    """Captions files and the folders of their photos, as two lists of paths."""
    add = group.add_argument
    again = "give both again for another set"
    add(
        "--captions",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help=f"{FORMAT_NAMES}, detected by content; {again}",
    )
    add(
        "--images",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help=f"where its photos lie; {again}",
    )


def network_fields() -> list[Field[Any]]:
    """The fields of ``ModelConfig`` that are a user's to choose."""
    return [field for field in fields(ModelConfig) if "help" in field.metadata]


def _add_field(group: argparse._ArgumentGroup, field: Field[Any], *, default: str) -> None:
    """An option that is absent from what is parsed unless it was given; ``default`` is what the help says."""
    choices = CHOICES.get(field.name)
    is_listed = choices is not None and len(choices) <= TOO_MANY_TO_LIST
    meaning = f"{field.metadata['help']}{': ' + ', '.join(choices) if choices and is_listed else ''}"
    group.add_argument(
        as_option(field.name),
        type=type(field.default),
        default=argparse.SUPPRESS,
        choices=choices,
        metavar="X",
        help=f"{meaning}; default {default}",
    )


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)
