"""Groups of command-line options that several commands share, made from the fields of the configurations."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from model import DecodingOptions, ModelConfig
from model.attention import ATTENTION_KINDS
from model.checkpoint import MANIFEST
from model.command import run_command
from model.encoder import encoder_names
from model.options import add_arguments, flag, given
from training.data.caption_files import FORMAT_NAMES
from training.engine.config import FINE_TUNING_MIN_COUNT, REMOVED_OPTIONS, RunOptions, TrainConfig
from training.runs.heads import HeadOptions

Head = TypeVar("Head", bound=HeadOptions)

DATA = ("skip_problems", "min_count", "encoder_weights")
RUN = ("start_from", "resume", "save_minutes", "validate_every", "name", "licence", "trained_on")
HARDWARE = ("device", "precision", "accumulate", "workers")


def command_parser(module: str, description: str | None, *, epilog: str = "") -> argparse.ArgumentParser:
    """A parser for ``python -m MODULE``, whose help shows ``description`` with its own line breaks."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Training data, vocabulary and pretrained encoder weights."""
    group = parser.add_argument_group("data")
    add_set_options(group)
    add_arguments(group, RunOptions, DATA)


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
    add = group.add_argument
    add("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    add(
        "--cache-features",
        action="store_true",
        help="encode the photos once for all epochs with a frozen encoder; needs about 0.3 MB a photo in RUN",
    )
    add_arguments(group, RunOptions, RUN)


def chosen_run_options(chosen: argparse.Namespace, *, features: Path | None = None) -> RunOptions:
    """The options of a run given on the command line; ``features`` is its cache of features.

    Raises:
        OptionsError: a value is out of range.
    """
    values = given(RunOptions, vars(chosen))
    if "start_from" in values:
        values.setdefault("min_count", FINE_TUNING_MIN_COUNT)
    return RunOptions(
        captions=tuple(chosen.captions),
        images=tuple(chosen.images),
        output=chosen.output,
        features=features,
        **values,
    )


def add_network_options(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """The fields of ``ModelConfig`` that users choose, except ``without``."""
    choices = {"encoder": encoder_names(), "attention": ATTENTION_KINDS}
    add_arguments(parser.add_argument_group("network"), ModelConfig, without=without, choices=choices)


def add_recipe_options(
    parser: argparse.ArgumentParser, *, without: Collection[str] = (), **defaults: Any
) -> None:
    """The fields of ``TrainConfig`` except ``without``, some with other ``defaults``."""
    group = parser.add_argument_group("recipe")
    add_arguments(group, TrainConfig, without=without, **defaults)
    for name in REMOVED_OPTIONS:
        group.add_argument(flag(name), action=_Removed, help=argparse.SUPPRESS)


def chosen_recipe(chosen: argparse.Namespace, **defaults: Any) -> TrainConfig:
    """The recipe given on the command line, with ``defaults`` for what was not given.

    Raises:
        OptionsError: a value is out of range or contradicts another.
    """
    return TrainConfig(**(defaults | given(TrainConfig, vars(chosen))))


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """What the training runs on."""
    add_arguments(parser.add_argument_group("hardware"), RunOptions, HARDWARE)


def add_head_options(parser: argparse.ArgumentParser, kind: type[HeadOptions]) -> None:
    """Data, captioner and output of a command that trains a head, and the other options of ``kind``."""
    add_set_options(parser.add_argument_group("data"))
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="captioner to add it to")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add_arguments(parser, kind)


def run_head_command(
    prog: str, chosen: argparse.Namespace, kind: type[Head], add_head: Callable[[Head], None]
) -> int:
    """Run a command with ``add_head_options``, whose body is ``add_head``; the exit status."""

    def body() -> None:
        options = kind(
            checkpoint=chosen.checkpoint,
            captions=tuple(chosen.captions),
            images=tuple(chosen.images),
            output=chosen.output,
            **given(kind, vars(chosen)),
        )
        add_head(options)

    def interrupted() -> str:
        is_written = (chosen.output / MANIFEST).exists()
        return f"stopped; {f'{chosen.output} is written' if is_written else 'nothing was written'}"

    return run_command(prog, body, interrupted=interrupted)


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
    DecodingOptions.add_arguments(parser.add_argument_group("decoding"))


class _Removed(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        option = self.option_strings[0]
        parser.error(
            f"{option} was removed; a run that used another value than {REMOVED_OPTIONS[self.dest]} cannot "
            "be resumed: start a new one without the option."
        )
