"""Average the weights of several captioners that were trained from the same weights.

    python -m training.average runs/a runs/b --shares 3 1 --output runs/average

The average may be better than each of them ("model soup", Wortsman et al. 2022, arXiv 2203.05482) and is as
fast as one. It may also be worse: compare their scores on val with python -m training.evaluate.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from model.command import run_command
from training.cli import command_parser
from training.runs.averaging import average


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = command_parser("training.average", __doc__)
    add = parser.add_argument
    add(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="checkpoint folders, two or more; image size, dropout and score blur are those of the last, the "
        "name is that of the first",
    )
    add("--shares", type=float, nargs="+", metavar="X", help="weight of each checkpoint, default equal")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    chosen = parser.parse_args(arguments)
    shares = chosen.shares or [1.0] * len(chosen.checkpoints)

    def averaged() -> None:
        average(chosen.checkpoints, shares, chosen.output)
        print(f"{chosen.output} is written")

    return run_command(
        "average",
        averaged,
        interrupted=lambda: "stopped; nothing was written",
    )


if __name__ == "__main__":
    sys.exit(main())
