"""Groups of command-line options that several commands share, most of them made from configuration fields."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

from model import DecodingOptions, ModelConfig
from model.attention import ATTENTION_KINDS
from model.config import CELLS, GATES, GRIDS, QUERIES, TOKENS
from model.encoder import encoder_names
from training.data.caption_files import FORMAT_NAMES
from training.engine.config import (
    FINE_TUNING_MIN_COUNT,
    REMOVED_OPTIONS,
    RunOptions,
    TrainConfig,
    as_option,
)

CHOICES: dict[str, Collection[str]] = {
    "tokens": TOKENS,
    "encoder": encoder_names(),
    "attention": ATTENTION_KINDS,
    "grid": GRIDS,
    "query": QUERIES,
    "cell": CELLS,
    "gate": GATES,
}
MAX_CHOICES_LISTED = 20


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Training data, vocabulary and pretrained encoder weights."""
    group = parser.add_argument_group("data")
    add_set_options(group)
    _add_fields(group, RunOptions, "skip_problems", "min_count", "encoder_weights")


def add_set_options(group: argparse._ArgumentGroup) -> None:
    """Captions files and the folders of their photos, as two lists of paths."""
    add = group.add_argument
    add(
        "--captions",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help=f"{FORMAT_NAMES}; the format is detected. Repeat --captions and --images for several sets",
    )
    add(
        "--images",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="folder of the photos that --captions names",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The output folder, what to start from, and how the run is saved and described."""
    group = parser.add_argument_group("run")
    group.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    _add_fields(group, RunOptions, "start_from", "resume")
    group.add_argument(
        "--cache-features",
        action="store_true",
        help="encode the photos once for all epochs with a frozen encoder; needs about 0.3 MB a photo in RUN",
    )
    _add_fields(group, RunOptions, "save_minutes", "validate_every", "name", "licence", "trained_on")


def chosen_run_options(chosen: argparse.Namespace, *, features: Path | None = None) -> RunOptions:
    """The options of a run given on the command line; ``features`` is its cache of features.

    Raises:
        OptionsError: a value is out of range.
    """
    names = {field.name for field in fields(RunOptions)} - {"captions", "images", "features"}
    given = {name: value for name, value in vars(chosen).items() if name in names}
    if given.get("start_from"):
        given.setdefault("min_count", FINE_TUNING_MIN_COUNT)
    return RunOptions(
        captions=tuple(chosen.captions), images=tuple(chosen.images), features=features, **given
    )


def add_network_options(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """The fields of ``ModelConfig`` that users choose, except ``without``."""
    names = [field.name for field in network_fields() if field.name not in without]
    _add_fields(parser.add_argument_group("network"), ModelConfig, *names)


def network_fields() -> list[Field[Any]]:
    """The fields of ``ModelConfig`` that users choose."""
    return [field for field in fields(ModelConfig) if "help" in field.metadata]


def chosen_network(chosen: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``ModelConfig`` that were given on the command line."""
    return {
        field.name: getattr(chosen, field.name) for field in network_fields() if hasattr(chosen, field.name)
    }


def add_recipe_options(
    parser: argparse.ArgumentParser, *, without: Collection[str] = (), **defaults: Any
) -> None:
    """The fields of ``TrainConfig`` except ``without``, some with other ``defaults``."""
    group = parser.add_argument_group("recipe")
    names = [field.name for field in fields(TrainConfig) if field.name not in without]
    _add_fields(group, TrainConfig, *names, **defaults)
    for name in REMOVED_OPTIONS:
        group.add_argument(as_option(name), action=_Removed, help=argparse.SUPPRESS)


def chosen_recipe(chosen: argparse.Namespace, **defaults: Any) -> TrainConfig:
    """The recipe given on the command line, with ``defaults`` for what was not given.

    Raises:
        OptionsError: a value is out of range or contradicts another.
    """
    given = {
        field.name: getattr(chosen, field.name)
        for field in fields(TrainConfig)
        if hasattr(chosen, field.name)
    }
    return TrainConfig(**(defaults | given))


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """What the training runs on."""
    names = ("precision", "device", "accumulate", "workers")
    _add_fields(parser.add_argument_group("hardware"), RunOptions, *names)


def add_captioner_options(parser: argparse.ArgumentParser) -> None:
    """The captioner to measure, how it decodes, and the device it runs on."""
    group = parser.add_argument_group("captioner")
    group.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("checkpoints/default"),
        metavar="DIR",
        help="checkpoint folder, default %(default)s",
    )
    group.add_argument("--device", default="cpu", help="torch device, default cpu")
    add_decoding_options(parser)


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """All fields of ``DecodingOptions``, for ``DecodingOptions.from_values(vars(chosen))``."""
    DecodingOptions.add_arguments(parser.add_argument_group("decoding"))


class _Removed(argparse.Action):
    """An option of earlier versions."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        option = self.option_strings[0]
        parser.error(
            f"{option} was removed; a run that used another value than {REMOVED_OPTIONS[self.dest]} cannot "
            "be resumed: start a new one without the option."
        )


def _add_fields(group: argparse._ArgumentGroup, config: Any, *names: str, **defaults: Any) -> None:
    """Add options for fields of a configuration; those that are not given are absent from the namespace.

    The help shows the default of the field, or that in ``defaults``.
    """
    for field in fields(config):
        if field.name not in names:
            continue
        option, meaning = as_option(field.name), field.metadata["help"]
        if field.default is False:
            group.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=meaning)
            continue
        choices = field.metadata.get("choices") or CHOICES.get(field.name, ())
        if 0 < len(choices) <= MAX_CHOICES_LISTED:
            meaning += f": {', '.join(choices)}"
        default = defaults.get(field.name, field.default)
        group.add_argument(
            option,
            type=field.metadata.get("type", type(field.default)),
            default=argparse.SUPPRESS,
            choices=choices or None,
            metavar="X",
            help=meaning if default is None else f"{meaning}; default {default}",
        )
