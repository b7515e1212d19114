"""Learn how far each caption can be trusted: a calibrated probability that it is right.

    python -m training.confidence --checkpoint runs/mine --captions captions.json --images photos/ \\
        --output runs/mine-with-confidence

captions the photos of the split val and learns which captions are right, by their references and the boxes of
--instances: those that name no absent object, and at least half of whose content words are in a reference.
Nothing else in the captioner changes. Cross-validated scores of the confidence are printed. It holds only for
the weights it was learnt with, so run this last.
"""

import sys
from collections.abc import Sequence

from training.cli import add_head_options, command_parser, run_head_command
from training.runs.confidence_training import ConfidenceOptions, add_confidence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = command_parser("training.confidence", __doc__)
    add_head_options(parser, ConfidenceOptions)
    return run_head_command("confidence", parser.parse_args(arguments), ConfidenceOptions, add_confidence)


if __name__ == "__main__":
    sys.exit(main())
