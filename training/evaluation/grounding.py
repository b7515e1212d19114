"""Grounding: whether the attention of a word is on the object that the word names.

Every caption word that names an object category (see ``object_words``) is scored where its photo has boxes of
that category, and on the same words so are two baselines, a uniform map and a centre prior.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

from model import Caption, Captioner, DecodingOptions, Grid
from model.captioner import BATCH_SIZE
from model.tokenizer import cut_for_scoring
from training.data.instances import AnnotatedPhoto, Box, Instances
from training.evaluation.evaluator import caption_photos
from training.evaluation.metrics import Floats, bootstrap_draws
from training.evaluation.object_words import CategoryWords

CENTRE_SIGMA = 0.25  # of the photo's sides: the width of the centre prior
MAX_CATEGORIES = 10  # in the report
MEASURES = ("pointing_accuracy", "attention_in_box")


def measure_maps(maps: Sequence[Floats], grid: Grid, boxes: Sequence[Box]) -> Floats:
    """Pointing accuracy and attention in box of several maps of one word, (maps, 2).

    Pointing accuracy: whether the centre of the heaviest cell is in a box. If several cells tie, the fraction
    of them whose centre is, so that a uniform map scores the fraction of all centres. Attention in box: the
    sum over cells of the weight times the fraction of the cell that the boxes cover together.

    Args:
        maps: (rows, columns) each, never negative.
        grid: where it lies on the photo.
        boxes: those of the word's category, at least one.
    """
    rows, columns = _edges(grid)
    inside = _is_covered(_middles(rows), _middles(columns), boxes)
    covered = _covered_fractions(rows, columns, boxes)
    peaks = [np.isclose(weights, weights.max(), rtol=1e-9, atol=0) for weights in maps]
    return np.array(
        [(inside[peak].mean(), (weights * covered).sum()) for weights, peak in zip(maps, peaks, strict=True)]
    )


def _edges(grid: Grid) -> tuple[Floats, Floats]:
    """The edges of the rows and of the columns of the grid, as fractions of the photo."""
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


def _covered_fractions(rows: Floats, columns: Floats, boxes: Sequence[Box]) -> Floats:
    """The exact fraction of every cell that the boxes cover; overlaps count once."""
    left, top, right, bottom = np.array(boxes).T
    # Cut along every edge of cells and boxes, each piece is either inside a box or outside all of them.
    down = np.unique(np.concatenate([rows, np.clip([*top, *bottom], rows[0], rows[-1])]))
    across = np.unique(np.concatenate([columns, np.clip([*left, *right], columns[0], columns[-1])]))
    pieces = np.outer(np.diff(down), np.diff(across))
    pieces *= _is_covered(_middles(down), _middles(across), boxes)
    by_row = np.add.reduceat(pieces, np.searchsorted(down, rows[:-1]), axis=0)
    by_cell = np.add.reduceat(by_row, np.searchsorted(across, columns[:-1]), axis=1)
    fractions: Floats = by_cell / np.outer(np.diff(rows), np.diff(columns))
    return fractions


def _baseline_maps(grid: Grid) -> list[Floats]:
    """The uniform map and the centre prior, a Gaussian at the centre of the photo."""
    down, across = (_middles(edges) - 0.5 for edges in _edges(grid))
    bump = np.exp(-(down[:, np.newaxis] ** 2 + across**2) / (2 * CENTRE_SIGMA**2))
    return [np.full_like(bump, 1 / bump.size), bump / bump.sum()]


def ground(captioner: Captioner, instances: Instances, options: DecodingOptions) -> dict[str, Any]:
    """Grounding of a captioner, see ``describe_grounding``.

    The figures at the top are those of the best generated caption of every photo. If photos have references,
    the figures of their words under teacher forcing are under ``reference``.

    Raises:
        DataError: a photo cannot be read.
        NonFiniteError: the network's output is not finite.
    """
    photos = instances.photos
    generated = [[caption] for caption in caption_photos(captioner, photos, options)]
    found = {"beam_size": options.beam_size, **describe_grounding(generated, instances)}
    described = tuple(photo for photo in photos if photo.captions)
    if described:
        forced = _force_references(captioner, described)
        found["reference"] = describe_grounding(forced, replace(instances, photos=described))
    return found


def _force_references(captioner: Captioner, photos: Sequence[AnnotatedPhoto]) -> list[list[Caption]]:
    captions: list[list[Caption]] = []
    for start in tqdm(range(0, len(photos), BATCH_SIZE), desc="teacher forcing", unit="batch", leave=False):
        batch = photos[start : start + BATCH_SIZE]
        references = [photo.captions for photo in batch]
        captions += captioner.force_decode([photo.read() for photo in batch], references)
    return captions


def describe_grounding(captions: Sequence[Sequence[Caption]], instances: Instances) -> dict[str, Any]:
    """Grounding of captions of the photos of ``instances``; all figures are fractions.

    Returns:
        ``words``: the number of words with a map whose category has boxes in the photo; without any, the
        figures are None. ``without_map``: the number of such words without a map, as of a network without
        attention. ``absent``: the number of words whose category has no box in the photo. ``chance``: the
        figures of the baselines on the same words. ``intervals``: 95% bootstrap intervals [low, high] over
        photos. ``by_category``: words and pointing accuracy of the most frequent categories.
    """
    names = CategoryWords(instances.categories)
    counts = Counter(absent=0, without_map=0)
    categories: list[str] = []  # of every word
    owners: list[int] = []  # its photo
    measures: list[Floats] = []  # (3, 2): its own map, the uniform map, the centre prior
    for owner, (photo, of_photo) in enumerate(zip(instances.photos, captions, strict=True)):
        for caption in of_photo:
            words = list(_words_with_maps(caption))
            for category, position in names.find([word for word, _ in words]):
                attention = words[position][1]
                if category not in photo.boxes:
                    counts["absent"] += 1
                elif attention is None:
                    counts["without_map"] += 1
                else:
                    maps = [attention, *_baseline_maps(caption.grid)]
                    measures.append(measure_maps(maps, caption.grid, photo.boxes[category]))
                    categories.append(category)
                    owners.append(owner)
    table = np.array(measures).reshape(len(measures), 3, len(MEASURES))
    own, uniform, centre = (_as_figures(table[:, number]) for number in range(3))
    return {
        "photographs": len(instances.photos),
        "words": len(measures),
        **counts,
        **own,
        "chance": {"uniform": uniform, "centre": centre},
        "intervals": _intervals(table[:, 0], owners),
        "by_category": _by_category(table[:, 0], categories),
    }


def _words_with_maps(caption: Caption) -> Iterator[tuple[str, Floats | None]]:
    """The words of a caption, each with the mean map of its tokens, which may be characters or pieces."""
    maps = [token.attention for token in caption.words]
    # Words and tokens spell the same text, except for spaces: the token of each of its characters.
    owners = [place for place, token in enumerate(caption.words) for _ in "".join(token.word.split())]
    start = 0
    for word in cut_for_scoring(caption.text).split():
        own = [maps[place] for place in sorted({*owners[start : start + len(word)]})]
        start += len(word)
        known = [np.array(attention) for attention in own if attention is not None]
        yield word, np.mean(known, axis=0) if known else None


def _as_figures(measures: Floats) -> dict[str, float | None]:
    """The mean over words (words, 2), by name."""
    if not len(measures):
        return dict.fromkeys(MEASURES)
    return dict(zip(MEASURES, map(_rounded, measures.mean(axis=0)), strict=True))


def _intervals(measures: Floats, owners: Sequence[int]) -> dict[str, list[float] | None]:
    """95% percentile intervals of the means, over resamples of the photos that have words."""
    if not owners:
        return dict.fromkeys(MEASURES)
    _, rows = np.unique(owners, return_inverse=True)
    sums = np.zeros((rows.max() + 1, 1 + len(MEASURES)))  # of a photo: words, measures
    np.add.at(sums, rows, np.insert(measures, 0, 1, axis=1))
    samples = np.stack([sums[draw].sum(axis=0) for draw in bootstrap_draws(len(sums))])
    edges = np.percentile(samples[:, 1:] / samples[:, :1], (2.5, 97.5), axis=0)
    return {name: [*map(_rounded, pair)] for name, pair in zip(MEASURES, edges.T, strict=True)}


def _by_category(measures: Floats, categories: Sequence[str]) -> dict[str, dict[str, float]]:
    table = {}
    for name, words in Counter(categories).most_common(MAX_CATEGORIES):
        is_of_it = np.array([category == name for category in categories])
        table[name] = {"words": words, "pointing_accuracy": _rounded(measures[is_of_it, 0].mean())}
    return table


def _rounded(value: float) -> float:
    return round(float(value), 4)
