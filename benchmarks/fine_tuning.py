"""Measures what fine-tuning the shipped model on a few hundred captioned images gains.

    python -m benchmarks.fine_tuning

draws images unlike any that the shipped model was trained on (coloured shapes with true captions, see
training/shapes.py), writes their captions as CSV, with one caption per training image, fine-tunes
``checkpoints/default`` with the command of the README and prints one JSON object: seconds, and the scores of
the shipped and the fine-tuned model on held-out images, with the paired difference and its 95% bootstrap
interval.
"""

import csv
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.harness.report import benchmark_parser
from model import Captioner, DecodingOptions
from model.command import run_command
from training import fit
from training.data.dataset import load_photos
from training.data.shapes import draw_world
from training.evaluation.evaluator import Evaluation

SHIPPED = Path("checkpoints/default")
IMAGE_SIZE = 224  # pixels
HELD_OUT = 200  # images


def split_of(number: int, training: int) -> str:
    """The split of an image: every tenth of the training images is for validation."""
    return "test" if number >= training else "val" if number % 10 == 9 else "train"


def write_images(folder: Path, training: int, seed: int) -> Path:
    """Write images and a CSV file of captions: one per training image, five per held-out image."""
    scenes = draw_world(training + HELD_OUT, IMAGE_SIZE, seed)
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
    """Draw images, fine-tune, and compare on held-out images; ``more`` are options of training.fit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        captions = write_images(folder, training, seed)
        arguments = ["--captions", str(captions), "--images", str(folder), "--start-from", str(SHIPPED)]
        start = time.monotonic()
        fit.train(fit.parser().parse_args([*arguments, "--output", str(folder / "run"), *more]))
        seconds = time.monotonic() - start
        held_out = load_photos([(captions, folder)], splits=("test",))
        before, after = (
            Evaluation.of(Captioner.load(checkpoint), held_out, DecodingOptions())
            for checkpoint in (SHIPPED, folder / "run")
        )
    return {
        "images": Counter(split_of(number, training) for number in range(training + HELD_OUT)),
        "seconds": round(seconds),
        "shipped": before.scores(),
        "fine_tuned": after.scores(),
        "gain": after.corpus.differences(before.corpus),
        "captions": [
            {"reference": " ".join(photo.captions[0]), "shipped": old.text, "fine_tuned": new.text}
            for photo, old, new in zip(held_out[:8], before.captions, after.captions, strict=False)
        ],
    }


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("fine_tuning", __doc__)
    parser.epilog = "Other options, such as --precision bf16, are passed on to training.fit."
    parser.add_argument("--photos", type=int, default=300, metavar="N", help="training images (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the images (default: 1)")
    args, more = parser.parse_known_args()
    print(json.dumps(measure(args.photos, args.seed, more), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.fine_tuning", main))
