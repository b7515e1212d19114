"""Train a phrase head, which reranks the captions in the beam by the phrases people would use.

    python -m training.phrases --checkpoint runs/mine --captions captions.json --images photos/ \\
        --output runs/mine-with-phrases

A small network on the encoder's features learns which phrases occur in the captions of a photo. Everything
else in the captioner stays the same, except for --image-size. It is trained on the split train, and CIDEr on
val is printed with and without it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.checkpoint import MANIFEST
from model.command import run_command
from training.cli import add_set_options
from training.runs.phrase_training import BATCH_SIZE, MIN_STEPS, PhraseOptions, PhraseRecipe, add_phrases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    chosen = _parser().parse_args(arguments)
    options = PhraseOptions(**{name: getattr(chosen, name) for name in PhraseOptions._fields})
    recipe = PhraseRecipe(**{name: getattr(chosen, name) for name in PhraseRecipe._fields})

    def interrupted() -> str:
        is_written = (options.output / MANIFEST).exists()
        return f"stopped; {f'{options.output} is written' if is_written else 'nothing was written'}"

    return run_command("phrases", lambda: add_phrases(options, recipe), interrupted=interrupted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.phrases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    recipe = PhraseRecipe()
    group = parser.add_argument_group("data")
    add_set_options(group)
    group.add_argument(
        "--skip-problems",
        action="store_true",
        help="leave out the photos that python -m training.check reports, instead of stopping",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="captioner to add a phrase head to")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add(
        "--min-count",
        type=int,
        default=recipe.min_count,
        metavar="N",
        help="phrases in the captions of fewer training photos are left out, default %(default)s; choose "
        "less for a small set",
    )
    add("--width", type=int, default=recipe.width, metavar="N", help="hidden units, default %(default)s")
    add(
        "--epochs",
        type=int,
        default=recipe.epochs,
        metavar="N",
        help=f"default %(default)s, or more for at least {MIN_STEPS} steps of {BATCH_SIZE} photos",
    )
    add(
        "--image-size",
        type=int,
        metavar="N",
        help="new input size in pixels a side, default that of the captioner; slightly more than in its "
        "training may be better (Touvron et al. 2019, arXiv 1906.06423)",
    )
    add("--seed", type=int, default=recipe.seed, metavar="N", help="random seed, default %(default)s")
    add(
        "--precision",
        choices=("fp32", "bf16"),
        default=recipe.precision,
        help="of the encoder, default %(default)s",
    )
    add("--device", default="cpu", help="torch device, default cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
