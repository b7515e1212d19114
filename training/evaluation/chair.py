"""CHAIR: how often captions name objects that are not in the photo.

Rohrbach et al. 2018, "Object Hallucination in Image Captioning" (arXiv 1809.02156). An object is a category
of an instances file; it is present in a photo if it has a box there or a reference names it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tokenizer import cut_for_scoring
from training.data.caption_files import CaptionedPhoto
from training.data.instances import Instances
from training.errors import DataError
from training.evaluation.metrics import Floats, bootstrap_draws, interval, percent
from training.evaluation.object_words import CategoryWords

MEASURES = ("chair_i", "chair_s", "recall")


class ChairScorer:
    """Compares captions with the objects present in their photos."""

    def __init__(
        self,
        photos: Sequence[CaptionedPhoto],
        instances: Instances,
        synonyms: Mapping[str, str] | None = None,
    ) -> None:
        """Find the objects that are present in photos.

        Args:
            photos: with their references.
            instances: the boxes of photos with the same file name. What other photos show is not known, so
                they are left out.
            synonyms: see ``CategoryWords``.

        Raises:
            DataError: none of the photos has boxes, or the list of synonyms lacks a category.
        """
        self._words = CategoryWords(instances.categories, synonyms)
        self._columns = {name: column for column, name in enumerate(instances.categories)}
        boxes = {photo.path.name: photo.boxes for photo in instances.photos}
        self._rows = [row for row, photo in enumerate(photos) if photo.path.name in boxes]
        if not self._rows:
            raise DataError(
                "The instances file has no boxes of these photos; --instances must be of their data."
            )
        described = [photos[row] for row in self._rows]
        boxed = self._count([[*boxes[photo.path.name]] for photo in described])
        named = self._count(
            [[name for words in photo.captions for name in self._named(words)] for photo in described]
        )
        self._present = boxed + named > 0  # (photos with boxes, categories)

    def score(self, captions: Sequence[str]) -> dict[str, Any]:
        """CHAIR of one caption per photo, x 100, see ``describe_chair``.

        ``captions``: tokenized and joined by spaces.
        """
        texts = [cut_for_scoring(captions[row]).split() for row in self._rows]
        mentions = self._count([self._named(words) for words in texts])
        return describe_chair(mentions, self._present, [*self._columns])

    def _named(self, words: Sequence[str]) -> list[str]:
        return [mention.category for mention in self._words.find(words)]

    def _count(self, names: Sequence[Collection[str]]) -> Floats:
        """How often each category is among the names of each photo, (photos, categories)."""
        counts = np.zeros((len(names), len(self._columns)))
        for row, of_photo in zip(counts, names, strict=True):
            np.add.at(row, [self._columns[name] for name in of_photo], 1)
        return counts


def describe_chair(mentions: Floats, present: NDArray[np.bool_], categories: Sequence[str]) -> dict[str, Any]:
    """CHAIR of captions, x 100.

    Args:
        mentions: (photos, categories), how often the caption of each photo names each category.
        present: (photos, categories), whether the photo shows it.
        categories: their names.

    Returns:
        ``chair_i``: of the ``words`` that name an object, the share whose object is ``absent``. ``chair_s``:
        the share of captions with such a word. ``recall``: of the objects present, the share that is named;
        without it, a caption that names nothing would be best. ``intervals``: 95% bootstrap intervals [low,
        high] over photos. A share of nothing is None. ``by_category``: of every category that is present or
        named, the ``words``, those ``absent``, and in how many photos it is ``present`` and ``named``; most
        often absent first.
    """
    absent = mentions * ~present
    named = (mentions > 0) & present
    parts = np.stack([absent.sum(axis=1), absent.any(axis=1), named.sum(axis=1)])  # (3, photos)
    wholes = np.stack([mentions.sum(axis=1), np.ones(len(mentions)), present.sum(axis=1)])
    shares = _shares(parts.sum(axis=1), wholes.sum(axis=1))
    draws = bootstrap_draws(len(mentions))
    samples = np.stack([_shares(parts[:, draw].sum(axis=1), wholes[:, draw].sum(axis=1)) for draw in draws])
    columns = zip(*(table.sum(axis=0).tolist() for table in (mentions, absent, present, named)), strict=True)
    counts = {
        name: dict(zip(("words", "absent", "present", "named"), map(int, column), strict=True))
        for name, column in zip(categories, columns, strict=True)
    }
    order = sorted(counts, key=lambda name: (-counts[name]["absent"], -counts[name]["words"], name))
    return {
        "photographs": len(mentions),
        "words": int(mentions.sum()),
        "absent": int(absent.sum()),
        **{
            name: None if np.isnan(share) else percent(share)
            for name, share in zip(MEASURES, shares, strict=True)
        },
        "intervals": {
            name: None if np.isnan(share) else interval(values[~np.isnan(values)])
            for name, share, values in zip(MEASURES, shares, samples.T, strict=True)
        },
        "by_category": {name: counts[name] for name in order if any(counts[name].values())},
    }


def _shares(parts: Floats, wholes: Floats) -> Floats:
    """Fractions, NaN of nothing."""
    return np.divide(parts, wholes, out=np.full_like(wholes, np.nan), where=wholes > 0)
