"""Train a word detector, whose evidence keeps captions to what is in the photo.

    python -m training.evidence --checkpoint runs/mine --captions captions.json --images photos/ \\
        --output runs/mine-with-evidence

A small network on the encoder's features learns which words occur in the captions of a photo; what speaks for
and against each word is then added to the decoder's scores. Everything else in the captioner stays the same.
How much the evidence counts, and a decoder that relies on it, are learnt by fine-tuning the result on other
photos, with the encoder frozen, since a detector is too sure of those it was trained on:

    python -m training.fit --start-from runs/mine-with-evidence --epochs 2 --frozen-epochs 2 ...

It is trained on the split train, and CIDEr on val is printed with and without it. Meanwhile it needs about
0.5 MB a photo in the output folder.
"""

import sys
from collections.abc import Sequence

from training.cli import add_head_options, command_parser, run_head_command
from training.runs.evidence_training import EvidenceOptions, add_evidence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = command_parser("training.evidence", __doc__)
    add_head_options(parser, EvidenceOptions)
    return run_head_command("evidence", parser.parse_args(arguments), EvidenceOptions, add_evidence)


if __name__ == "__main__":
    sys.exit(main())
