"""How good a captioner's captions are.

    python -m training.evaluate --checkpoint checkpoints/default \\
        --captions ../shared/data/flickr8k/captions.json --images ../shared/data/flickr8k/images --split test

prints one JSON object. Captions are free-running (the network reads its own words, as in use), one a
photograph, and scored as text. ``evaluate_captioner`` also validates during training.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from model import Caption, Captioner, CaptioningError, DecodingOptions
from model.captioner import BATCH_SIZE
from model.checkpoint import write_scores
from model.vocabulary import detokenize
from training.data import SPLITS, CaptionedPhotograph, DataError, read_photographs
from training.loop import DivergedError
from training.metrics import score_captions
from training.options import add_captioner_options

# Distance of successive maps under which they count as one map; of maps that learn, the first epoch has ten
# times that.
CONSTANT_STEP = 0.01


def caption_photographs(
    captioner: Captioner, photographs: Sequence[CaptionedPhotograph], options: DecodingOptions
) -> list[Caption]:
    """The best caption of every photograph, in order, with a progress bar.

    Raises:
        DataError: a photograph cannot be read.
        DivergedError: the network's numbers are not finite, so that no word is better than another.
    """
    captions: list[Caption] = []
    with tqdm(total=len(photographs), desc="captioning", unit="photograph", leave=False) as bar:
        for start in range(0, len(photographs), BATCH_SIZE):
            images = [photograph.read() for photograph in photographs[start : start + BATCH_SIZE]]
            found = captioner.caption(images, options)
            if not all(found):
                raise DivergedError("The network says nothing: its numbers are not finite.")
            captions += [best for best, *_ in found]
            bar.update(len(images))
    return captions


def evaluate_captioner(
    captioner: Captioner, photographs: Sequence[CaptionedPhotograph], options: DecodingOptions
) -> dict[str, Any]:
    """Scores of free-running captions (see ``score_captions``) and how the attention behaved.

    ``attention`` says how the maps behaved, see ``describe_attention``.

    Raises:
        DataError: a photograph cannot be read.
    """
    captions = caption_photographs(captioner, photographs, options)
    references = [[detokenize(words) for words in photograph.captions] for photograph in photographs]
    scores = score_captions([caption.text for caption in captions], references)
    decoding = {name: value for name, value in asdict(options).items() if name != "num_captions"}
    return {
        "images": len(photographs),
        **decoding,
        **scores,
        "mean_length": round(sum(len(caption.words) for caption in captions) / len(captions), 2),
        "unfinished": sum(not caption.is_finished for caption in captions),
        "attention": describe_attention(captions),
    }


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
        scores = _evaluate(options)
        print(json.dumps(scores, indent=1))
        if options.save:
            write_scores(options.checkpoint, scores)
    except (CaptioningError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    decoding = DecodingOptions(beam_size=options.beam_size)
    photographs = read_photographs(options.captions, options.images, (options.split,))
    if not photographs:
        raise DataError(f"{options.captions} lists no photographs of the split {options.split!r}.")
    captioner = Captioner.load(options.checkpoint, options.device)
    return {
        "split": options.split,
        "checkpoint_sha256": captioner.info.sha256,
        **evaluate_captioner(captioner, photographs, decoding),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Caption a split of a data set and print BLEU-1 to 4, ROUGE-L and CIDEr (all x 100) with "
        "95 % bootstrap intervals, as one JSON object.",
        epilog="example: python -m training.evaluate --captions captions.json --images photos/ --split val",
    )
    add_captioner_options(parser)
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help="Karpathy JSON")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where its photographs lie")
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val; keep test for the end")
    parser.add_argument(
        "--save", action="store_true", help="also keep the scores in the checkpoint's scores.json"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
