"""Train a phrase head, which reranks the captions in the beam by the phrases people would use.

    python -m training.phrases --checkpoint runs/mine --captions captions.json --images photos/ \\
        --output runs/mine-with-phrases

A small network on the encoder's features learns which phrases occur in the captions of a photo. Everything
else in the captioner stays the same, except for --image-size. It is trained on the split train, and CIDEr on
val is printed with and without it.
"""

import sys
from collections.abc import Sequence

from training.cli import add_head_options, command_parser, run_head_command
from training.runs.phrase_training import PhraseOptions, add_phrases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = command_parser("training.phrases", __doc__)
    add_head_options(parser, PhraseOptions)
    return run_head_command("phrases", parser.parse_args(arguments), PhraseOptions, add_phrases)


if __name__ == "__main__":
    sys.exit(main())
