"""A captioner of one's own: what fine-tuning the shipped model on a few hundred captioned pictures gives.

    python -m benchmarks.own_photographs

draws a world the shipped model has never seen (coloured shapes with true captions, see
training/shapes.py), writes its captions as CSV with one caption a picture for training, fine-tunes
``checkpoints/default`` with the command of the README and prints one JSON object: seconds, and the scores of
the shipped and of the fine-tuned captioner on pictures that neither was trained on, with the paired
difference and its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from model import Captioner, DecodingOptions
from training import fit
from training.data.dataset import load_photos
from training.data.shapes import draw_world
from training.evaluation.evaluator import Evaluation

SHIPPED = Path("checkpoints/default")
SIDE = 224  # pixels
HELD_OUT = 200  # pictures to compare on


def split_of(number: int, training: int) -> str:
    """Of a picture: every tenth of those to train on is for val."""
    return "test" if number >= training else "val" if number % 10 == 9 else "train"


def write_pictures(folder: Path, training: int, seed: int) -> Path:
    """Pictures and their captions as a CSV file: one for training pictures, all five for held-out ones."""
    scenes = draw_world(training + HELD_OUT, SIDE, seed)
    captions = folder / "mine.csv"
    with captions.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption", "split"))
        for number, scene in enumerate(scenes):
            name = f"{number:04}.jpg"
            scene.image.save(folder / name, quality=90)
            split = split_of(number, training)
            texts = scene.captions[:1] if split == "train" else scene.captions
            writer.writerows((name, text, split) for text in texts)
    return captions


def measure(training: int, seed: int, more: list[str]) -> dict[str, Any]:
    """Draw, fine-tune, compare."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(own)
        captions = write_pictures(folder, training, seed)
        arguments = ["--captions", str(captions), "--images", str(folder), "--start-from", str(SHIPPED)]
        clock = time.monotonic()
        status = fit.main([*arguments, "--output", str(folder / "run"), *more])
        seconds = time.monotonic() - clock
        if status:
            sys.exit(status)
        held_out = load_photos([(captions, folder)], splits=("test",))
        before, after = (
            Evaluation.of(Captioner.load(checkpoint), held_out, DecodingOptions())
            for checkpoint in (SHIPPED, folder / "run")
        )
    return {
        "pictures": Counter(split_of(number, training) for number in range(training + HELD_OUT)),
        "seconds": round(seconds),
        "shipped": before.scores(),
        "fine_tuned": after.scores(),
        "gain": after.tally.differences(before.tally),
        "captions": [
            {"reference": " ".join(photo.captions[0]), "shipped": old.text, "fine_tuned": new.text}
            for photo, old, new in zip(held_out[:8], before.captions, after.captions, strict=False)
        ],
    }


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.own_photographs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What else is given goes to training.fit, such as --precision bf16.",
    )
    parser.add_argument("--pictures", type=int, default=300, metavar="N", help="to train on, default 300")
    parser.add_argument("--seed", type=int, default=1, help="of the pictures, default 1")
    chosen, more = parser.parse_known_args()
    print(json.dumps(measure(chosen.pictures, chosen.seed, more), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
