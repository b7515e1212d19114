"""Train a captioner on captioned photos.

    python -m training.fit --captions captions.json --images photos/ --output runs/mine \\
        --encoder resnet50 --cache-features

To fine-tune a trained captioner instead, add --start-from checkpoints/default. The output folder contains

    config.json, weights.safetensors ...   checkpoint of the epoch with the best CIDEr on val
    last/                                  checkpoint of the last epoch
    log.jsonl, curves.png, samples/        loss, scores and sample captions of every epoch
    state.pt                               what --resume needs

Stop a run with Ctrl-C at any time; re-run the command with --resume to continue it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from model import ModelConfig
from model.command import run_command
from model.options import flag, given
from training import cli
from training.data.dataset import load_photos, pair_sources
from training.engine.config import FINE_TUNING
from training.engine.distributed import broadcast_from_main, process_group
from training.runs.initialization import Initialization
from training.runs.run import Run
from training.runs.run_directory import STATE, RunDirectory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    chosen = parser().parse_args(arguments)

    def interrupted() -> str:
        is_saved = (chosen.output / STATE).exists()
        return f"stopped; {'re-run with --resume to continue' if is_saved else 'nothing was saved yet'}"

    return run_command("fit", lambda: train(chosen), interrupted=interrupted)


def train(chosen: argparse.Namespace) -> None:
    """Train as the arguments of ``parser`` say.

    Raises:
        CaptioningError: the options, the photos or the output folder cannot be used, or the loss diverged.
    """
    features = chosen.output / "features.npy" if chosen.cache_features else None
    options = cli.chosen_run_options(chosen, features=features)
    recipe = cli.chosen_recipe(chosen, **(FINE_TUNING if options.start_from else {}))
    with process_group(options.device) as device:
        options = replace(options, device=device)
        directory = RunDirectory(options.output)
        directory.check(resume=options.resume)
        sources = pair_sources(options.captions, options.images)
        initialization = Initialization(options, given(ModelConfig, vars(chosen)))
        with directory.locked():
            photos = broadcast_from_main(
                lambda: load_photos(sources, check="decode", skip_problems=options.skip_problems)
            )
            Run(options, recipe, initialization, photos).start()


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    defaults = ", ".join(f"{flag(name)} {value}" for name, value in FINE_TUNING.items())
    made = cli.command_parser(
        "training.fit", __doc__, epilog=f"With --start-from the defaults are {defaults}."
    )
    cli.add_data_options(made)
    cli.add_run_options(made)
    cli.add_network_options(made)
    cli.add_recipe_options(made)
    cli.add_hardware_options(made)
    return made


if __name__ == "__main__":
    sys.exit(main())
