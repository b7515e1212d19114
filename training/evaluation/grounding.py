"""Whether the attention of a word lies on the thing that the word names.

    python -m training.grounding --checkpoint checkpoints/default --instances instances.json --images photos/

prints one JSON object. Every caption word that names an object category of the annotation file (see
``training.evaluation.object_words``) is judged where its photo has boxes of that category, and so are
two maps that know nothing, on the same words: a uniform one and a bump in the middle of the photo. The
words are those of generated captions and, under ``reference``, those of the captions people wrote, under
teacher forcing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model import Caption, Captioner, CaptioningError, DecodingOptions, Grid
from model.captioner import BATCH_SIZE
from training.cli import add_captioner_options
from training.data.caption_files import FORMAT_NAMES
from training.data.instances import AnnotatedPhoto, Box, Instances, read_instances
from training.evaluation.evaluator import caption_photos
from training.evaluation.metrics import RESAMPLES, Floats
from training.evaluation.object_words import CategoryWords

CENTRE_SIGMA = 0.25  # of the photo's sides: how wide the centre prior's bump is
CATEGORIES_SHOWN = 10
MEASURES = ("pointing_accuracy", "attention_in_box")


def measure_maps(maps: Sequence[Floats], grid: Grid, boxes: Sequence[Box]) -> Floats:
    """Pointing accuracy and attention in box of some maps of one word, (maps, 2).

    Pointing accuracy: whether the centre of the heaviest cell lies in a box; if several cells are heaviest,
    the share of them whose centre does, so that a uniform map scores the share of all centres. Attention in
    box: the sum over cells of the weight times the share of the cell that the boxes cover together.

    Args:
        maps: (rows, columns) each, never negative.
        grid: where they lie on the photo.
        boxes: those of the word's category, at least one.
    """
    rows, columns = _edges(grid)
    inside = _is_covered(_middles(rows), _middles(columns), boxes)
    covered = _covered_shares(rows, columns, boxes)
    peaks = [np.isclose(weights, weights.max(), rtol=1e-9, atol=0) for weights in maps]
    return np.array(
        [(inside[peak].mean(), (weights * covered).sum()) for weights, peak in zip(maps, peaks, strict=True)]
    )


def _edges(grid: Grid) -> tuple[Floats, Floats]:
    """Where the rows and the columns of the grid begin and end, as fractions of the photo."""
    left, top, right, bottom = grid.box
    return np.linspace(top, bottom, grid.rows + 1), np.linspace(left, right, grid.columns + 1)


def _middles(edges: Floats) -> Floats:
    middles: Floats = (edges[:-1] + edges[1:]) / 2
    return middles


def _is_covered(down: Floats, across: Floats, boxes: Sequence[Box]) -> Floats:
    """1 where a point (down, across) lies in a box, else 0."""
    left, top, right, bottom = np.array(boxes).T[..., np.newaxis]  # (boxes, 1) each
    in_rows = ((top <= down) & (down <= bottom)).astype(np.float64)
    in_columns = ((left <= across) & (across <= right)).astype(np.float64)
    covered: Floats = np.minimum(in_rows.T @ in_columns, 1)
    return covered


def _covered_shares(rows: Floats, columns: Floats, boxes: Sequence[Box]) -> Floats:
    """Of every cell between the edges the share that the boxes cover, exactly; overlaps count once."""
    left, top, right, bottom = np.array(boxes).T
    # Cut along every edge of cells and boxes, each piece lies wholly inside a box or wholly outside all.
    down = np.unique(np.concatenate([rows, np.clip([*top, *bottom], rows[0], rows[-1])]))
    across = np.unique(np.concatenate([columns, np.clip([*left, *right], columns[0], columns[-1])]))
    pieces = np.outer(np.diff(down), np.diff(across))
    pieces *= _is_covered(_middles(down), _middles(across), boxes)
    by_row = np.add.reduceat(pieces, np.searchsorted(down, rows[:-1]), axis=0)
    by_cell = np.add.reduceat(by_row, np.searchsorted(across, columns[:-1]), axis=1)
    shares: Floats = by_cell / np.outer(np.diff(rows), np.diff(columns))
    return shares


def _chance_maps(grid: Grid) -> list[Floats]:
    """The uniform map and the centre prior: a Gaussian bump in the middle of the photo."""
    down, across = (_middles(edges) - 0.5 for edges in _edges(grid))
    bump = np.exp(-(down[:, np.newaxis] ** 2 + across**2) / (2 * CENTRE_SIGMA**2))
    return [np.full_like(bump, 1 / bump.size), bump / bump.sum()]


def ground(captioner: Captioner, instances: Instances, options: DecodingOptions) -> dict[str, Any]:
    """How well the attention of a captioner's words lies on what they name; see ``describe_grounding``.

    The figures at the top are of the best generated caption of every photo. If any photo has
    references, those of their words under teacher forcing are under ``reference``.

    Raises:
        DataError: a photo cannot be read.
    """
    photos = instances.photos
    generated = [[caption] for caption in caption_photos(captioner, photos, options)]
    found = {"beam_size": options.beam_size, **describe_grounding(generated, instances)}
    described = tuple(photo for photo in photos if photo.captions)
    if described:
        read = _read_references(captioner, described)
        found["reference"] = describe_grounding(read, replace(instances, photos=described))
    return found


def _read_references(captioner: Captioner, photos: Sequence[AnnotatedPhoto]) -> list[list[Caption]]:
    captions: list[list[Caption]] = []
    with tqdm(total=len(photos), desc="reading", unit="photo", leave=False) as bar:
        for start in range(0, len(photos), BATCH_SIZE):
            batch = photos[start : start + BATCH_SIZE]
            references = [photo.captions for photo in batch]
            captions += captioner.force_decode([photo.read() for photo in batch], references)
            bar.update(len(batch))
    return captions


def describe_grounding(captions: Sequence[Sequence[Caption]], instances: Instances) -> dict[str, Any]:
    """The figures of captions of the photos of ``instances``, as fractions.

    ``words`` are those that name a category the photo has boxes of and that have a map; ``without_map``
    counts those that have none, as of a network without attention, ``absent`` the words for a category
    without boxes on that photo. If there are no words, the figures are None. ``chance`` has the figures
    of maps that know nothing, for the same words; ``intervals`` the 95 % bootstrap interval [low, high] over
    photos; ``by_category`` the words and the pointing accuracy of the categories with most words.
    """
    names = CategoryWords(instances.categories)
    counts = Counter(absent=0, without_map=0)
    categories: list[str] = []  # of every word
    owners: list[int] = []  # its photo
    measures: list[Floats] = []  # (3, 2): its own map, the uniform one, the centre prior
    for owner, (photo, told) in enumerate(zip(instances.photos, captions, strict=True)):
        for caption in told:
            for category, position in names.find([word.word for word in caption.words]):
                attention = caption.words[position].attention
                if category not in photo.boxes:
                    counts["absent"] += 1
                elif attention is None:
                    counts["without_map"] += 1
                else:
                    maps = [np.array(attention), *_chance_maps(caption.grid)]
                    measures.append(measure_maps(maps, caption.grid, photo.boxes[category]))
                    categories.append(category)
                    owners.append(owner)
    words, photos = len(measures), len(instances.photos)
    table = np.array(measures).reshape(words, 3, len(MEASURES))
    own, uniform, centre = (_as_figures(table[:, number]) for number in range(3))
    return {
        "photographs": photos,
        "words": words,
        **counts,
        **own,
        "chance": {"uniform": uniform, "centre": centre},
        "intervals": _intervals(table[:, 0], owners),
        "by_category": _by_category(table[:, 0], categories),
    }


def _as_figures(measures: Floats) -> dict[str, float | None]:
    """The mean over words (words, 2), by name."""
    if not len(measures):
        return dict.fromkeys(MEASURES)
    return dict(zip(MEASURES, map(_rounded, measures.mean(axis=0)), strict=True))


def _intervals(measures: Floats, owners: Sequence[int]) -> dict[str, list[float] | None]:
    """95 % percentile intervals of the means, over resamples of the photos that have words."""
    if not owners:
        return dict.fromkeys(MEASURES)
    _, rows = np.unique(owners, return_inverse=True)
    sums = np.zeros((rows.max() + 1, 1 + len(MEASURES)))  # of a photo: words, measures
    np.add.at(sums, rows, np.insert(measures, 0, 1, axis=1))
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    samples = np.stack([sums[draw].sum(axis=0) for draw in draws])
    edges = np.percentile(samples[:, 1:] / samples[:, :1], (2.5, 97.5), axis=0)
    return {name: [*map(_rounded, pair)] for name, pair in zip(MEASURES, edges.T, strict=True)}


def _by_category(measures: Floats, categories: Sequence[str]) -> dict[str, dict[str, float]]:
    table = {}
    for name, words in Counter(categories).most_common(CATEGORIES_SHOWN):
        is_of_it = np.array([category == name for category in categories])
        table[name] = {"words": words, "pointing_accuracy": _rounded(measures[is_of_it, 0].mean())}
    return table


def _rounded(value: float) -> float:
    return round(float(value), 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        print(json.dumps(_ground(options), indent=1))
    except (CaptioningError, OSError) as error:
        print(f"grounding: {error}", file=sys.stderr)
        return 2
    return 0


def _ground(options: argparse.Namespace) -> dict[str, Any]:
    decoding = DecodingOptions.from_values(vars(options))
    instances = read_instances(options.instances, options.images, options.captions)
    captioner = Captioner.load(options.checkpoint, options.device)
    return {"checkpoint_sha256": captioner.info.sha256, **ground(captioner, instances, decoding)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.grounding",
        description="Measure whether the attention of the words that name an object lies in its boxes, next "
        "to maps that know nothing, and print it as one JSON object.",
        epilog="example: python -m training.grounding --instances instances.json --images photos/",
    )
    add_captioner_options(parser)
    parser.add_argument("--instances", type=Path, required=True, metavar="FILE", help="COCO instances JSON")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where its photos lie")
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help=f"reference captions, in place of those in the instances file: {FORMAT_NAMES}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
