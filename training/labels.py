"""Train a label head, which says what a photo shows by single names, such as "espresso".

    python -m training.labels --checkpoint runs/mine --captions captions.json --images photos/ \\
        --labels labels.json --output runs/mine-with-labels

A small network on the encoder's features learns the probabilities that an image classifier gave to the
photos: any classifier, with any names. They are read from a JSON file, so the classifier is not needed here:

    {"labels": ["espresso", "cup"], "photos": {"coffee.jpg": {"0": 0.77, "1": 0.1}}}

Photos are named by their file names, labels by their places in the list; labels that a photo does not list
have probability 0. Nothing else in the captioner changes.

The head is trained on the split train, and its agreement with the classifier on val is printed: the share of
photos whose most probable label is the same (top_1), or is among the head's first five (top_5), how many
labels a photo has, and the share of them among the classifier's first five (right). Meanwhile it needs about
0.5 MB a photo in the output folder.
"""

import sys
from collections.abc import Sequence

from training.cli import add_head_options, command_parser, run_head_command
from training.runs.label_training import LabelOptions, add_labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = command_parser("training.labels", __doc__)
    add_head_options(parser, LabelOptions)
    return run_head_command("labels", parser.parse_args(arguments), LabelOptions, add_labels)


if __name__ == "__main__":
    sys.exit(main())
