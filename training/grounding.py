"""Measure grounding: whether the attention of the words that name an object is on its boxes.

    python -m training.grounding --checkpoint checkpoints/default --instances instances.json --images photos/

prints one JSON object with the pointing accuracy and the attention in box of generated captions, of
references under teacher forcing (if there are any), and of two baselines: a uniform map and a centre prior.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model import Captioner, DecodingOptions
from model.command import run_command
from training.cli import add_captioner_options, command_parser
from training.data.caption_files import FORMAT_NAMES
from training.data.instances import read_instances
from training.evaluation.grounding import ground


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = command_parser("training.grounding", __doc__)
    add_captioner_options(parser)
    add = parser.add_argument
    add("--instances", type=Path, required=True, metavar="FILE", help="COCO instances JSON")
    add("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
    captions = f"references, instead of those in the instances file: {FORMAT_NAMES}"
    add("--captions", type=Path, metavar="FILE", help=captions)
    chosen = parser.parse_args(arguments)
    return run_command("grounding", lambda: _ground(chosen))


def _ground(chosen: argparse.Namespace) -> None:
    options = DecodingOptions.from_values(vars(chosen))
    captioner = Captioner.load(chosen.checkpoint, chosen.device)
    instances = read_instances(chosen.instances, chosen.images, chosen.captions)
    found = {"checkpoint_sha256": captioner.info.sha256, **ground(captioner, instances, options)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main())
