"""Check captioned photos before training.

    python -m training.check --captions captions.json --images photos/

prints how many photos and captions each split has, and lists the photos that are missing, corrupt, without
captions, or leaked across splits (files with the same bytes in training and in val or test). To check several
datasets together, repeat --captions and --images in pairs.

Exit status: 0 no problems, 1 problems found, 2 wrong usage or a captions file that cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence

from model.command import run_command
from training.cli import add_set_options, command_parser
from training.data.caption_files import parse_captions
from training.data.dataset import pair_sources
from training.data.validation import check_photos, describe_problems, describe_splits


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = command_parser("training.check", __doc__)
    add_set_options(parser.add_argument_group("data"))
    chosen = parser.parse_args(arguments)
    return run_command("check", lambda: _check(chosen))


def _check(chosen: argparse.Namespace) -> int:
    sources = pair_sources(chosen.captions, chosen.images)
    photos = [photo for file, images in sources for photo in parse_captions(file, images)]
    print(describe_splits(photos))
    problems = check_photos(photos)
    print(describe_problems(problems) or "No problems found.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
