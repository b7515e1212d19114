"""Score a captioner on one split of a data set.

    python -m training.evaluate --checkpoint checkpoints/default --captions captions.json --images photos/

captions every photo of the split and prints one JSON object: BLEU-1 to 4, ROUGE-L and CIDEr (all x 100) with
95% bootstrap intervals, and METEOR and SPICE if Java is installed. --instances adds CHAIR (x 100): how often
captions name objects that are not in the photo. Of a captioner with confidence, it says how well that agrees
with whether captions are right.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model import Captioner, DecodingOptions, OptionsError
from model.checkpoint import write_scores
from model.command import run_command
from model.files import write_whole
from training.cli import add_captioner_options, command_parser
from training.data.caption_files import FORMAT_NAMES, CaptionedPhoto
from training.data.dataset import load_photos
from training.data.instances import Instances, read_instances
from training.data.splits import SPLITS
from training.errors import DataError, JavaError
from training.evaluation.calibration import describe_confidence
from training.evaluation.chair import ChairScorer
from training.evaluation.correctness import Correctness, ObjectNames
from training.evaluation.evaluator import Evaluation
from training.evaluation.java_metrics import JAVA_METRICS
from training.evaluation.object_words import read_synonyms
from training.reporting.reliability import write_reliability


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    chosen = _parser().parse_args(arguments)
    return run_command("evaluate", lambda: _evaluate(chosen))


def _evaluate(chosen: argparse.Namespace) -> None:
    options = DecodingOptions.from_values(vars(chosen))
    output: Path | None = chosen.write_captions
    for name, path in (("--write-captions", output), ("--reliability", chosen.reliability)):
        if path and (path.is_dir() or not path.parent.is_dir()):
            raise OptionsError(f"{name} is {path}; it must be a file in an existing folder.")
    if chosen.synonyms and not chosen.instances:
        raise OptionsError("--synonyms needs --instances.")
    captioner = Captioner.load(chosen.checkpoint, chosen.device)
    if chosen.reliability and not captioner.config.confidence:
        raise OptionsError(
            f"--reliability needs a captioner with confidence; add it to {chosen.checkpoint} with "
            "training.confidence."
        )
    photos = load_photos([(chosen.captions, chosen.images)], splits=(chosen.split,))
    if not photos:
        raise DataError(f"{chosen.captions} lists no photos of the split {chosen.split!r}.")
    instances = read_instances(chosen.instances, chosen.images) if chosen.instances else None
    chair = _chair_scorer(chosen, photos, instances) if instances else None
    evaluation = Evaluation.of(captioner, photos, options)
    scores = {"split": chosen.split, "checkpoint_sha256": captioner.info.sha256, **evaluation.scores()}
    if chosen.breakdown:
        scores |= evaluation.breakdown()
    texts = [caption.text for caption in evaluation.captions]
    if chair:
        scores["chair"] = chair.score(texts)
    confidence = evaluation.confidence()
    if confidence is not None:
        correctness = Correctness.of(texts, photos, ObjectNames(captioner.config.language, instances))
        scores["confidence"] = describe_confidence(confidence, correctness)
    # Scores are saved before Java starts, and printed whatever happens to Java or to a file.
    try:
        if chosen.save:
            write_scores(chosen.checkpoint, scores)
        if chosen.reliability and confidence is not None:
            write_reliability(chosen.reliability, confidence, correctness)
        if output:
            write_whole(output, "".join(f"{json.dumps(one)}\n" for one in evaluation.records(chosen.images)))
        for name in JAVA_METRICS:
            try:
                scores[name] = evaluation.java_score(name)
            except JavaError as error:
                print(f"evaluate: {name.upper()} skipped: {error}", file=sys.stderr)
        if chosen.save:
            write_scores(chosen.checkpoint, scores)
    finally:
        print(json.dumps(scores, indent=1))


def _chair_scorer(
    chosen: argparse.Namespace, photos: Sequence[CaptionedPhoto], instances: Instances
) -> ChairScorer:
    synonyms = read_synonyms(chosen.synonyms) if chosen.synonyms else None
    return ChairScorer(photos, instances, synonyms)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("training.evaluate", __doc__)
    add_captioner_options(parser)
    add = parser.add_argument
    add("--captions", type=Path, required=True, metavar="FILE", help=FORMAT_NAMES)
    add("--images", type=Path, required=True, metavar="DIR", help="folder of the photos")
    add("--split", choices=SPLITS, default="val", help="default val; use test only for final results")
    add("--save", action="store_true", help="save the scores in the checkpoint's scores.json")
    add("--breakdown", action="store_true", help="add scores by caption length and by photo content")
    add(
        "--instances",
        type=Path,
        metavar="FILE",
        help="COCO instances JSON with boxes of the photos: add CHAIR",
    )
    add(
        "--synonyms",
        type=Path,
        metavar="FILE",
        help="words of each category for CHAIR, a category a line, instead of the built-in ones",
    )
    add(
        "--reliability",
        type=Path,
        metavar="FILE",
        help="draw the reliability diagram of the confidence, and its risk by coverage, as a PNG",
    )
    add(
        "--write-captions",
        type=Path,
        metavar="FILE",
        help="write the captions to a JSONL file: a record per photo, with its references and its CIDEr",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
