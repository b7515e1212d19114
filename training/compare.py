"""Train several kinds of attention with the same recipe and compare them.

    python -m training.compare --captions captions.json --images photos/ --output runs/compare \\
        --encoder resnet50 --kinds none uniform additive --epochs 3

Every kind is trained on the features of the same frozen encoder, with the same seed, batches and schedule,
and scored on val. The output folder contains comparison.md, a table, comparison.json, and a folder for each
run. With --instances, a COCO instances file, the table also has the grounding of the attention maps.

Finished runs are kept: re-run the command to continue a comparison, or with more --kinds or --seeds to extend
it. A kind whose training diverges is a row that says so.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model import DecodingOptions, ModelConfig
from model.attention import ATTENTION_KINDS
from model.command import run_command
from model.options import given, options_of
from training import cli
from training.comparison.experiment import Experiment, ExperimentOptions
from training.engine.config import network_defaults

DEFAULTS = {"epochs": 3}
# The encoder is frozen, seeds have their own option, and hard attention cannot be trained self-critically.
WITHOUT = ("frozen_epochs", "encoder_learning_rate", "seed")
SELF_CRITICAL = ("self_critical_epochs", "self_critical_learning_rate", "samples")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    chosen = _parser().parse_args(arguments)
    return run_command(
        "compare",
        lambda: print(Experiment(_options(chosen)).start()),
        interrupted=lambda: "stopped; re-run the command to continue",
    )


def _options(chosen: argparse.Namespace) -> ExperimentOptions:
    chosen_by_users = {name for name, known in options_of(ModelConfig).items() if known.help} - {"attention"}
    return ExperimentOptions(
        run=cli.chosen_run_options(chosen),
        recipe=cli.chosen_recipe(chosen, **DEFAULTS),
        network=network_defaults(chosen_by_users) | given(ModelConfig, vars(chosen)),
        kinds=chosen.kinds,
        seeds=chosen.seeds,
        split=chosen.split,
        decoding=DecodingOptions.from_values(vars(chosen)),
        instances=chosen.instances,
        instance_images=chosen.instance_images,
        instance_captions=chosen.instance_captions,
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.command_parser("training.compare", __doc__)
    cli.add_data_options(parser)
    add = parser.add_argument_group("comparison").add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write, or to continue in")
    add(
        "--kinds",
        nargs="+",
        choices=ATTENTION_KINDS,
        default=list(ATTENTION_KINDS),
        metavar="KIND",
        help=f"kinds of attention, default all: {', '.join(ATTENTION_KINDS)}",
    )
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="a run of each kind a seed, default 0")
    add("--split", choices=("val", "test"), default="val", help="split to score, default val")
    add("--instances", type=Path, metavar="FILE", help="COCO instances JSON, to measure grounding")
    add("--instance-images", type=Path, metavar="DIR", help="folder of its photos, default images/ beside it")
    add("--instance-captions", type=Path, metavar="FILE", help="their captions, in a format of --captions")
    cli.add_network_options(parser, without=("attention",))
    cli.add_recipe_options(parser, without=(*WITHOUT, *SELF_CRITICAL), **DEFAULTS)
    DecodingOptions.add_arguments(parser.add_argument_group("decoding"))
    cli.add_hardware_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
