"""Groups of command-line options that several commands share, most of them made from configuration fields."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

import torch

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
    add = group.add_argument
    add(
        "--skip-problems",
        action="store_true",
        help="train without the photos that python -m training.check reports, instead of stopping",
    )
    add(
        "--min-count",
        type=int,
        metavar="N",
        help=f"words that occur less often become unknown, default {RunOptions.min_count}, with --start-from "
        f"{FINE_TUNING_MIN_COUNT}",
    )
    add(
        "--encoder-weights",
        default="published",
        metavar="FILE",
        help="pretrained encoder weights: a file, 'published' to download those of torchvision (default), or "
        "'none'",
    )


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
    add = parser.add_argument_group("run").add_argument
    add("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    add(
        "--start-from",
        type=Path,
        metavar="DIR",
        help="fine-tune this checkpoint, such as checkpoints/default; new words are added to its vocabulary",
    )
    add("--resume", action="store_true", help="continue the run in --output; repeat its other options")
    add(
        "--cache-features",
        action="store_true",
        help="encode the photos once for all epochs with a frozen encoder; needs about 0.3 MB a photo in RUN",
    )
    add(
        "--save-minutes",
        type=float,
        default=3,
        metavar="M",
        help="minutes between saves, which is the most that a crash can lose, default 3",
    )
    add("--validate-every", type=int, default=1, metavar="N", help="validate every N epochs, default 1")
    add("--name", default="captioner", help="name stored in the checkpoint")
    add("--licence", default="unstated", help="terms of the weights, stored in the checkpoint")
    add("--trained-on", default="unstated", help="description of the data, stored in the checkpoint")


def chosen_run_options(chosen: argparse.Namespace, *, features: Path | None = None) -> RunOptions:
    """The options of a run given on the command line; ``features`` is its cache of features.

    Raises:
        OptionsError: a value is out of range.
    """
    names = {field.name for field in fields(RunOptions)} - {"captions", "images", "features"}
    given = {name: value for name, value in vars(chosen).items() if name in names and value is not None}
    if given.get("start_from"):
        given.setdefault("min_count", FINE_TUNING_MIN_COUNT)
    return RunOptions(
        captions=tuple(chosen.captions), images=tuple(chosen.images), features=features, **given
    )


def add_network_options(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """The fields of ``ModelConfig`` that users choose, except ``without``."""
    group = parser.add_argument_group("network")
    for field in network_fields():
        if field.name not in without:
            _add_field(group, field, default=str(field.default))


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
    for field in fields(TrainConfig):
        if field.name not in without:
            _add_field(group, field, default=str(defaults.get(field.name, field.default)))
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
    add = parser.add_argument_group("hardware").add_argument
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="bf16 is faster on recent server CPUs and GPUs, fp16 on older GPUs; default fp32",
    )
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="torch device, default cuda if available, else cpu",
    )
    add(
        "--accumulate",
        type=_whole_number,
        default=1,
        metavar="N",
        help="accumulate the gradients of N smaller batches in a step, to need less memory, default 1",
    )
    add(
        "--workers",
        type=_whole_number,
        default=1,
        metavar="N",
        help="data loader worker processes, 0 to load in the training process, default 1",
    )


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


def _add_field(group: argparse._ArgumentGroup, field: Field[Any], *, default: str) -> None:
    """Add an option that is absent from the namespace unless given; the help shows ``default``."""
    choices = CHOICES.get(field.name)
    is_listed = choices is not None and len(choices) <= MAX_CHOICES_LISTED
    listed = f": {', '.join(choices)}" if choices and is_listed else ""
    group.add_argument(
        as_option(field.name),
        type=type(field.default),
        default=argparse.SUPPRESS,
        choices=choices,
        metavar="X",
        help=f"{field.metadata['help']}{listed}; default {default}",
    )


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
