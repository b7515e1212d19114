"""How good a captioner's captions are.

    python -m training.evaluate --checkpoint checkpoints/default \\
        --captions ../shared/data/flickr8k/captions.json --images ../shared/data/flickr8k/images --split test

prints one JSON object. Captions are free-running (the network reads its own words, as in use), one a
photograph, and scored as text. ``evaluate_captioner`` also validates during training; what needs Java, the
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
    photograph_record,
)
from model.captioner import BATCH_SIZE
from model.checkpoint import write_scores
from model.files import write_whole
from model.tokens import cut_for_scoring
from model.vocabulary import detokenize
from training.breakdown import by_category, by_length, count_faults
from training.captions import FORMS, SPLITS, CaptionedPhotograph, DataError, read_photographs
from training.categories import CategoryWords
from training.chair import describe_hallucination, present_objects
from training.instances import Instances, read_instances
from training.java_metrics import JAVA_METRICS, JavaError
from training.loop import DivergedError
from training.metrics import Tally, percent
from training.options import add_captioner_options, chosen_decoding

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


@dataclass(frozen=True)
class Evaluation:
    """The free-running captions of photographs, and what their scores are made of."""

    photographs: Sequence[CaptionedPhotograph]
    captions: list[Caption]  # the best of every photograph
    options: DecodingOptions  # as they were used: the checkpoint's own longest caption is in its place
    tally: Tally

    @classmethod
    def of(
        cls, captioner: Captioner, photographs: Sequence[CaptionedPhotograph], options: DecodingOptions
    ) -> Self:
        """Caption photographs, at least one, and compare the captions with what people wrote.

        Raises:
            DataError: a photograph cannot be read.
            DivergedError: the network's numbers are not finite.
        """
        captions = caption_photographs(captioner, photographs, options)
        tally = Tally.of([caption.text for caption in captions], references_of(photographs))
        return cls(photographs, captions, captioner.settled(options), tally)

    def scores(self) -> dict[str, Any]:
        """What ``Tally.scores`` says, how many ``images`` it is of, and how they were captioned.

        ``faults`` counts captions, see ``count_faults``; ``mean_length`` is in words; ``attention`` says how
        the maps behaved, see ``describe_attention``.
        """
        texts = [caption.text for caption in self.captions]
        decoding = {name: value for name, value in asdict(self.options).items() if name != "num_captions"}
        return {
            "images": len(self.photographs),
            **decoding,
            **self.tally.scores(),
            "distinct_captions": len(set(texts)),
            "mean_length": round(fmean(len(cut_for_scoring(text).split()) for text in texts), 2),
            "faults": count_faults(self.captions),
            "attention": describe_attention(self.captions),
        }

    def breakdown(self) -> dict[str, Any]:
        """Scores ``by_length`` of the caption and ``by_category`` of what is on the photograph."""
        references = [photograph.captions for photograph in self.photographs]
        return {
            "by_length": by_length(self.tally, self.captions),
            "by_category": by_category(self.tally, references),
        }

    def hallucination(self, instances: Instances, synonyms: str | None = None) -> dict[str, Any]:
        """How often the captions name objects that are not there, see ``describe_hallucination``.

        Of photographs that ``instances`` has no boxes of nobody knows what they show; they are left out.

        Args:
            instances: boxes; photographs are matched by file name.
            synonyms: the published list; None: the words of ``training.categories``.

        Raises:
            DataError: none of the photographs has boxes, or the list lacks a category.
        """
        try:
            names = (
                CategoryWords(instances.categories)
                if synonyms is None
                else CategoryWords.from_synonyms(synonyms, instances.categories)
            )
        except ValueError as error:
            raise DataError(f"The synonyms do not fit the instances: {error}.") from None
        boxes = {photograph.path.name: photograph.boxes for photograph in instances.photographs}
        known = [
            (one, caption.text.split())
            for one, caption in zip(self.photographs, self.captions, strict=True)
            if one.path.name in boxes
        ]
        if not known:
            raise DataError("None of the photographs of this split has boxes in the instances file.")
        present = [present_objects(names, boxes[one.path.name], one.captions) for one, _ in known]
        return describe_hallucination(names, [words for _, words in known], present)

    def records(self, images: Path) -> Iterator[dict[str, Any]]:
        """For every photograph the record that the service writes, and what its score came from.

        ``references`` are what people wrote, ``cider`` (x 100) is the caption's share in the CIDEr of all:
        their mean is the score. Photographs are called by their paths in the folder ``images``.

        Raises:
            OSError, ImageError: a photograph is no longer what it was when it was captioned.
        """
        references = references_of(self.photographs)
        for number, photograph in enumerate(self.photographs):
            data = photograph.path.read_bytes()
            picture = open_image(data)
            yield {
                **photograph_record(
                    Path(os.path.relpath(photograph.path, images)).as_posix(),
                    sha256=sha256(data).hexdigest(),
                    width=picture.width,
                    height=picture.height,
                    captions=[self.captions[number]],
                    attention=False,
                ),
                "references": references[number],
                "cider": percent(self.tally.cider[number]),
            }


def references_of(photographs: Sequence[CaptionedPhotograph]) -> list[list[str]]:
    """What people wrote of each photograph, as it is scored: tokenized and joined by spaces."""
    return [[detokenize(words) for words in photograph.captions] for photograph in photographs]


def evaluate_captioner(
    captioner: Captioner, photographs: Sequence[CaptionedPhotograph], options: DecodingOptions
) -> dict[str, Any]:
    """Scores of free-running captions, see ``Evaluation.scores``.

    Raises:
        DataError: a photograph cannot be read.
        DivergedError: the network's numbers are not finite.
    """
    return Evaluation.of(captioner, photographs, options).scores()


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
    if options.synonyms and not options.instances:
        raise OptionsError("--synonyms needs --instances.")
    sha, evaluation = _evaluate(options)
    scores = {"split": options.split, "checkpoint_sha256": sha, **evaluation.scores()}
    if options.breakdown:
        scores |= evaluation.breakdown()
    if options.instances:
        instances = read_instances(options.instances, options.images)
        synonyms = options.synonyms.read_text(encoding="utf-8") if options.synonyms else None
        scores["hallucination"] = evaluation.hallucination(instances, synonyms)
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
    """The checkpoint's sha256, and what it says of the photographs."""
    decoding = chosen_decoding(options)
    photographs = read_photographs(options.captions, options.images, (options.split,))
    if not photographs:
        raise DataError(f"{options.captions} lists no photographs of the split {options.split!r}.")
    captioner = Captioner.load(options.checkpoint, options.device)
    return captioner.info.sha256, Evaluation.of(captioner, photographs, decoding)


def _add_java_scores(scores: dict[str, Any], evaluation: Evaluation) -> None:
    """Add what Java computes, with its intervals; for what it does not, say why on standard error."""
    texts = [caption.text for caption in evaluation.captions]
    references = references_of(evaluation.photographs)
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
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help=FORMS)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where its photographs lie")
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val; keep test for the end")
    parser.add_argument(
        "--save", action="store_true", help="also keep the scores in the checkpoint's scores.json"
    )
    parser.add_argument(
        "--breakdown",
        action="store_true",
        help="add scores by length of the caption and by what is on the photograph",
    )
    parser.add_argument(
        "--instances",
        type=Path,
        metavar="FILE",
        help="COCO instances JSON with boxes: add CHAIR, how often captions name objects that are not there",
    )
    parser.add_argument(
        "--synonyms",
        type=Path,
        metavar="FILE",
        help="with --instances: a list of words (a category a line) for the built-in one",
    )
    parser.add_argument(
        "--write-captions",
        type=Path,
        metavar="FILE",
        help="keep the captions in a JSONL file: a record a photograph, with its references and its CIDEr",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
