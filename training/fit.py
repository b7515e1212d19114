"""Train a captioner on captioned photographs.

    python -m training.fit --captions captions.json --images photos/ --output runs/mine \\
        --encoder resnet50 --cache-features

writes to runs/mine: a checkpoint of the best epoch (as in checkpoints/default), last/ with that of
the last, log.jsonl with a line an epoch, and state.pt, from which --resume goes on where the run
was stopped, in the middle of an epoch too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from model import CaptioningError
from model.encoder import encoder_names
from training.config import TrainConfig, as_option
from training.run import STATE, Run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        Run(options).start()
    except KeyboardInterrupt:
        can_go_on = (options.output / STATE).exists()
        what_next = (
            "the same command with --resume goes on from here" if can_go_on else "nothing was done yet"
        )
        print(f"\nfit: stopped; {what_next}.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    return 0


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_options(parser)
    _add_network_options(parser.add_argument_group("network"))
    _add_run_options(parser.add_argument_group("run"))
    recipe = parser.add_argument_group("recipe")
    for field in fields(TrainConfig):
        recipe.add_argument(
            as_option(field.name),
            type=type(field.default),
            default=field.default,
            metavar="X",
            help=f"{field.metadata['help']}, default {field.default}",
        )
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--captions", type=Path, required=True, metavar="FILE", help="Karpathy JSON")
    add("--images", type=Path, required=True, metavar="DIR", help="where its photographs lie")
    add("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    add("--resume", action="store_true", help="go on with the run in --output")
    add(
        "--min-count",
        type=int,
        default=5,
        metavar="N",
        help="words rarer than this become unknown, default 5",
    )


def _add_network_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--encoder",
        choices=encoder_names(),
        default="efficientnet_v2_b0",
        metavar="NAME",
        help="efficientnet_v2_b0 (default), tiny_cnn, or a torchvision classification CNN such as resnet50",
    )
    add(
        "--encoder-weights",
        default="published",
        metavar="FILE",
        help="a file of pretrained weights, 'published' for torchvision's own (default), or 'none'",
    )
    add(
        "--image-size",
        type=int,
        default=224,
        metavar="PIXELS",
        help="side of the encoder's input, default 224",
    )


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--cache-features",
        action="store_true",
        help="compute the frozen encoder's features once and keep them in RUN (0.25 MB a photograph)",
    )
    add(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="bf16 is faster where the hardware has it (recent server CPUs and GPUs)",
    )
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: a GPU if there is one",
    )
    add("--workers", type=_whole_number, default=1, metavar="N", help="reading processes, default 1")
    add("--save-minutes", type=float, default=3, metavar="M", help="most work a crash can lose, default 3")
    add("--name", default="captioner", help="name kept in the checkpoint")
    add("--licence", default="unstated", help="terms of the weights, kept in the checkpoint")
    add("--trained-on", default="unstated", help="what the data is, kept in the checkpoint")


if __name__ == "__main__":
    sys.exit(main())
