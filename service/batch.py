"""Captions image files into an output folder: ``python -m service.batch PHOTOS --output CAPTIONS``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model import Captioner, DecodingOptions
from model.command import SUCCESS, run_command
from model.files import locked
from service.errors import OutputError
from service.files.output import OVERLAYS, WRITERS
from service.files.runner import BatchOptions, BatchRun, Counts
from service.files.sources import find_sources

SOME_FAILED = 3  # exit status
CHECKPOINT = Path("checkpoints/default")

EXAMPLE = """\
example:
  python -m service.batch holiday/ --output captions/ --overlays

  captions/captions.jsonl              one record per photo: {"image": "beach/a.jpg", "captions": [...]}
  captions/overlays/beach/a.jpg.png    attention map of every word
  captions/errors.jsonl                if photos failed: which, and why

Re-run the same command to resume: photos that have a record are skipped, photos that failed are
tried again. Another checkpoint or other options need another --output.

exit status: 0 all photos captioned, 2 wrong usage, 3 some photos failed, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (those of the process if None); returns the exit status."""
    args, counts = _parser().parse_args(arguments), Counts()
    return run_command(
        "service.batch",
        lambda: _caption(args, counts),
        interrupted=lambda: f"{counts.captioned} captioned; re-run the same command to resume",
    )


def _caption(args: argparse.Namespace, counts: Counts) -> int:
    options = BatchOptions(
        decoding=DecodingOptions.from_values(vars(args)),
        batch_size=args.batch_size,
        attention=args.attention,
        formats=frozenset(name for name in WRITERS if getattr(args, name)),
    )
    with locked(args.output):
        captioner = Captioner.load(args.checkpoint)
        sources = find_sources(args.inputs, ignored=args.output / OVERLAYS)
        try:
            BatchRun(captioner, args.output, options, counts).caption(sources)
        except OSError as error:
            raise OutputError(
                f"Cannot write to {args.output} ({error}); the records so far are kept."
            ) from None
    print(f"{counts} (see {args.output / 'errors.jsonl'})" if counts.failed else counts)
    return SOME_FAILED if counts.failed else SUCCESS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.batch",
        description="Caption photos and write one JSON record per photo.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="file, folder (recursive), glob, or - for a list on stdin")
    add("--output", type=Path, required=True, metavar="DIR", help="output folder, new or of an earlier run")
    add("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR", help="default: %(default)s")
    add("--batch-size", type=int, default=8, metavar="N", help="photos captioned at once (default: 8)")
    add("--attention", action="store_true", help="include the attention weights of each word in the records")
    for name, writer in WRITERS.items():
        add(f"--{name}", action="store_true", help=writer.help)
    DecodingOptions.add_arguments(parser.add_argument_group("decoding"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
