"""Write a synthetic dataset of coloured shapes, to try training without downloading any data.

python -m training.shapes --output world --photographs 1000
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model.command import run_command
from training.cli import command_parser
from training.data.shapes import write_world


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = command_parser("training.shapes", __doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--photographs", type=int, default=400, metavar="N", help="number of images, default %(default)s")
    add("--size", type=int, default=64, metavar="PIXELS", help="pixels a side, default %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="random seed, default %(default)s")
    chosen = parser.parse_args(arguments)
    return run_command("shapes", lambda: _write(chosen))


def _write(chosen: argparse.Namespace) -> None:
    write_world(chosen.output, chosen.photographs, chosen.size, chosen.seed)
    print(f"{chosen.output}: {chosen.photographs} images, captions.json and instances.json written.")


if __name__ == "__main__":
    sys.exit(main())
