"""Train a captioner on captioned photos.

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

from model import CaptioningError
from training.cli import (
    add_data_options,
    add_hardware_options,
    add_network_options,
    add_recipe_options,
    chosen_network,
    chosen_recipe,
)
from training.data.dataset import load_photos, pair_sources
from training.engine.config import FINE_TUNING, FINE_TUNING_MIN_COUNT, RunOptions
from training.engine.distributed import from_first, processes_of_run
from training.runs.run import Run
from training.runs.run_directory import STATE, RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        with processes_of_run(chosen.device) as chosen.device:
            _fit(chosen)
    except KeyboardInterrupt:
        can_go_on = (chosen.output / STATE).exists()
        what_next = (
            "the same command with --resume goes on from here" if can_go_on else "nothing was done yet"
        )
        print(f"\nfit: stopped; {what_next}.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    return 0


def _fit(chosen: argparse.Namespace) -> None:
    recipe = chosen_recipe(chosen, **(FINE_TUNING if chosen.start_from else {}))
    options, network = _run_options(chosen), chosen_network(chosen)
    folder = RunFolder(options.output)
    folder.check_state() if options.resume else folder.check_free()  # before minutes of reading
    sources = pair_sources(options.captions, options.images)
    photos = from_first(lambda: load_photos(sources, check="decode", skip_problems=options.skip_problems))
    Run(options, recipe, network, photos).start()


def _run_options(chosen: argparse.Namespace) -> RunOptions:
    names = {field.name for field in fields(RunOptions)} - {"features"}
    features = chosen.output / "features.npy" if chosen.cache_features else None
    given = {name: getattr(chosen, name) for name in names}
    if chosen.min_count is None:
        given["min_count"] = FINE_TUNING_MIN_COUNT if chosen.start_from else RunOptions.min_count
    given |= {"captions": tuple(chosen.captions), "images": tuple(chosen.images), "features": features}
    return RunOptions(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(parser)
    _add_run_options(parser.add_argument_group("run"))
    add_network_options(parser)
    add_recipe_options(parser)
    add_hardware_options(parser)
    return parser


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    add(
        "--start-from",
        type=Path,
        metavar="DIR",
        help="go on from a trained captioner, such as checkpoints/default; its vocabulary grows",
    )
    add("--resume", action="store_true", help="go on with the run in --output")
    add(
        "--cache-features",
        action="store_true",
        help="compute the frozen encoder's features once and keep them in RUN (about 0.3 MB a photo)",
    )
    add("--save-minutes", type=float, default=3, metavar="M", help="most work a crash can lose, default 3")
    add("--validate-every", type=int, default=1, metavar="N", help="epochs between validations, default 1")
    add("--name", default="captioner", help="name kept in the checkpoint")
    add("--licence", default="unstated", help="terms of the weights, kept in the checkpoint")
    add("--trained-on", default="unstated", help="what the data is, kept in the checkpoint")


if __name__ == "__main__":
    sys.exit(main())
