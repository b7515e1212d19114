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
from model.options import add_arguments, given
from training.cli import add_set_options, command_parser
from training.runs.phrase_training import PhraseOptions, add_phrases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = command_parser("training.phrases", __doc__)
    add_set_options(parser.add_argument_group("data"))
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="captioner to add a phrase head to")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add_arguments(parser, PhraseOptions)
    chosen = parser.parse_args(arguments)

    def interrupted() -> str:
        is_written = (chosen.output / MANIFEST).exists()
        return f"stopped; {f'{chosen.output} is written' if is_written else 'nothing was written'}"

    return run_command("phrases", lambda: add_phrases(_options(chosen)), interrupted=interrupted)


def _options(chosen: argparse.Namespace) -> PhraseOptions:
    return PhraseOptions(
        checkpoint=chosen.checkpoint,
        captions=tuple(chosen.captions),
        images=tuple(chosen.images),
        output=chosen.output,
        **given(PhraseOptions, vars(chosen)),
    )


if __name__ == "__main__":
    sys.exit(main())
