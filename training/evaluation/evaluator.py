"""How good a captioner's captions are.

    python -m training.evaluate --checkpoint checkpoints/default \\
        --captions ../shared/data/flickr8k/captions.json --images ../shared/data/flickr8k/images --split test

prints one JSON object. Captions are free-running (the network reads its own words, as in use), one a
photo, and scored as text. ``evaluate_captioner`` also validates during training; what needs Java, the
scores by group (--breakdown) and the captions in a file (--write-captions) are of this command alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from tqdm import tqdm

from model import (
    Caption,
    Captioner,
    CaptioningError,
    DecodingOptions,
    OptionsError,
    open_image,
    photo_record,
)
from model.captioner import BATCH_SIZE
from model.checkpoint import write_scores
from model.files import write_whole
from model.tokenizer import cut_for_scoring, detokenize
from training.cli import add_captioner_options
from training.data.caption_files import FORMAT_NAMES, CaptionedPhoto
from training.data.dataset import load_photos
from training.data.splits import SPLITS
from training.errors import DataError, JavaError
from training.evaluation.breakdown import by_category, by_length, count_faults
from training.evaluation.java_metrics import JAVA_METRICS
from training.evaluation.metrics import Tally, percent

# Distance of successive maps under which they count as one map; of maps that learn, the first epoch has ten
# times that.
CONSTANT_STEP = 0.01


def caption_photos(
    captioner: Captioner, photos: Sequence[CaptionedPhoto], options: DecodingOptions
) -> list[Caption]:
    """The best caption of every photo, in order, with a progress bar.

    Raises:
        DataError: a photo cannot be read.
        NonFiniteError: the network's output is not finite.
    """
    captions: list[Caption] = []
    with tqdm(total=len(photos), desc="captioning", unit="photo", leave=False) as bar:
        for start in range(0, len(photos), BATCH_SIZE):
            images = [photo.read() for photo in photos[start : start + BATCH_SIZE]]
            captions += [best for best, *_ in captioner.caption(images, options)]
            bar.update(len(images))
    return captions


@dataclass(frozen=True)
class Evaluation:
    """The free-running captions of photos, and what their scores are made of."""

    photos: Sequence[CaptionedPhoto]
    captions: list[Caption]  # the best of every photo
    options: DecodingOptions  # as they were used: the checkpoint's own longest caption is in its place
    tally: Tally

    @classmethod
    def of(cls, captioner: Captioner, photos: Sequence[CaptionedPhoto], options: DecodingOptions) -> Self:
        """Caption photos, at least one, and compare the captions with what people wrote.

        Raises:
            DataError: a photo cannot be read.
            NonFiniteError: the network's output is not finite.
        """
        captions = caption_photos(captioner, photos, options)
        tally = Tally.of([caption.text for caption in captions], references_of(photos))
        return cls(photos, captions, captioner.resolve(options), tally)

    def scores(self) -> dict[str, Any]:
        """What ``Tally.scores`` says, how many ``images`` it is of, and how they were captioned.

        ``faults`` counts captions, see ``count_faults``; ``mean_length`` is in words; ``attention`` says how
        the maps behaved, see ``describe_attention``.
        """
        texts = [caption.text for caption in self.captions]
        decoding = {name: value for name, value in asdict(self.options).items() if name != "num_captions"}
        return {
            "images": len(self.photos),
            **decoding,
            **self.tally.scores(),
            "distinct_captions": len(set(texts)),
            "mean_length": round(fmean(len(cut_for_scoring(text).split()) for text in texts), 2),
            "faults": count_faults(self.captions),
            "attention": describe_attention(self.captions),
        }

    def breakdown(self) -> dict[str, Any]:
        """Scores ``by_length`` of the caption and ``by_category`` of what is on the photo."""
        references = [photo.captions for photo in self.photos]
        return {
            "by_length": by_length(self.tally, self.captions),
            "by_category": by_category(self.tally, references),
        }

    def records(self, images: Path) -> Iterator[dict[str, Any]]:
        """For every photo the record that the service writes, and what its score came from.

        ``references`` are what people wrote, ``cider`` (x 100) is the caption's share in the CIDEr of all:
        their mean is the score. Photos are called by their paths in the folder ``images``.

        Raises:
            OSError, ImageError: a photo is no longer what it was when it was captioned.
        """
        references = references_of(self.photos)
        for number, photo in enumerate(self.photos):
            data = photo.path.read_bytes()
            picture = open_image(data)
            yield {
                **photo_record(
                    Path(os.path.relpath(photo.path, images)).as_posix(),
                    sha256=sha256(data).hexdigest(),
                    width=picture.width,
                    height=picture.height,
                    captions=[self.captions[number]],
                    attention=False,
                ),
                "references": references[number],
                "cider": percent(self.tally.cider[number]),
            }


def references_of(photos: Sequence[CaptionedPhoto]) -> list[list[str]]:
    """What people wrote of each photo, as it is scored: tokenized and joined by spaces."""
    return [[detokenize(words) for words in photo.captions] for photo in photos]


def evaluate_captioner(
    captioner: Captioner, photos: Sequence[CaptionedPhoto], options: DecodingOptions
) -> dict[str, Any]:
    """Scores of free-running captions, see ``Evaluation.scores``.

    Raises:
        DataError: a photo cannot be read.
        NonFiniteError: the network's output is not finite.
    """
    return Evaluation.of(captioner, photos, options).scores()


def describe_attention(captions: Sequence[Caption]) -> dict[str, float] | None:
    """How the words' maps behaved, or None without maps.

    Returns:
        ``entropy``: mean entropy of a word's map as a share of that of a uniform map (0: one cell, 1:
        everywhere alike). ``step_distance``: mean total variation distance between the maps of successive
        words (0: the same map, 1: nothing in common). ``uniform_distance``: the same between a word's map and
        the uniform map.
    """
    entropies, steps, uniform = [], [], []
    for caption in captions:
        maps = [
            [weight for row in word.attention for weight in row] for word in caption.words if word.attention
        ]
        for weights in maps:
            # A grid of one cell leaves no choice: whatever its map, it counts as looking everywhere.
            entropies.append(_entropy(weights) / math.log(len(weights)) if len(weights) > 1 else 1.0)
            uniform.append(_distance(weights, [1 / len(weights)] * len(weights)))
        steps += [_distance(before, after) for before, after in pairwise(maps)]
    if not entropies:
        return None
    return {
        "entropy": round(fmean(entropies), 4),
        "step_distance": round(fmean(steps or [0.0]), 4),
        "uniform_distance": round(fmean(uniform), 4),
    }


def is_constant(attention: dict[str, float] | None) -> bool:
    """Whether what ``describe_attention`` found are maps that hardly change from word to word."""
    return attention is not None and attention["step_distance"] < CONSTANT_STEP


def _entropy(weights: Sequence[float]) -> float:
    """In nats."""
    return -sum(weight * math.log(weight) for weight in weights if weight > 0)


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Total variation distance, 0 to 1."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (CaptioningError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: stopped", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    keep: Path | None = options.write_captions
    if keep and not keep.parent.is_dir():
        raise OptionsError(f"--write-captions names {keep}, whose folder does not exist; make it first.")
    sha, evaluation = _evaluate(options)
    scores = {"split": options.split, "checkpoint_sha256": sha, **evaluation.scores()}
    if options.breakdown:
        scores |= evaluation.breakdown()
    # What was found is out before Java is asked, or is printed whatever becomes of Java or of a file.
    try:
        if options.save:
            write_scores(options.checkpoint, scores)
        if keep:
            records = evaluation.records(options.images)
            write_whole(keep, "".join(f"{json.dumps(record)}\n" for record in records))
        _add_java_scores(scores, evaluation)
        if options.save:
            write_scores(options.checkpoint, scores)
    finally:
        print(json.dumps(scores, indent=1))


def _evaluate(options: argparse.Namespace) -> tuple[str, Evaluation]:
    """The checkpoint's sha256, and what it says of the photos."""
    decoding = DecodingOptions.from_values(vars(options))
    photos = load_photos([(options.captions, options.images)], splits=(options.split,))
    if not photos:
        raise DataError(f"{options.captions} lists no photos of the split {options.split!r}.")
    captioner = Captioner.load(options.checkpoint, options.device)
    return captioner.info.sha256, Evaluation.of(captioner, photos, decoding)


def _add_java_scores(scores: dict[str, Any], evaluation: Evaluation) -> None:
    """Add what Java computes, with its intervals; for what it does not, say why on standard error."""
    texts = [caption.text for caption in evaluation.captions]
    references = references_of(evaluation.photos)
    for name, measure in JAVA_METRICS.items():
        try:
            found = measure(texts, references)
        except JavaError as error:
            print(f"evaluate: {name.upper()} is skipped: {error}", file=sys.stderr)
        else:
            scores[name] = found.value
            scores["intervals"][name] = found.interval


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Caption a split of a data set and print BLEU-1 to 4, ROUGE-L and CIDEr (all x 100) with "
        "95 % bootstrap intervals, as one JSON object; METEOR and SPICE too where Java can compute them.",
        epilog="example: python -m training.evaluate --captions captions.json --images photos/ --split val",
    )
    add_captioner_options(parser)
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help=FORMAT_NAMES)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where its photos lie")
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val; keep test for the end")
    parser.add_argument(
        "--save", action="store_true", help="also keep the scores in the checkpoint's scores.json"
    )
    parser.add_argument(
        "--breakdown",
        action="store_true",
        help="add scores by length of the caption and by what is on the photo",
    )
    parser.add_argument(
        "--write-captions",
        type=Path,
        metavar="FILE",
        help="keep the captions in a JSONL file: a record a photo, with its references and its CIDEr",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
