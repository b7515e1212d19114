"""Whether captions are right, which confidence is learnt from and compared with.

A caption is right if it names no object that is absent from the photo, and at least half of its content words
are in one or more of the photo's references.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from model.english import DANGLING_WORDS, LINKING_WORDS
from model.tokenizer import cut_for_scoring, detokenize
from training.data.caption_files import CaptionedPhoto
from training.data.instances import Instances
from training.evaluation.metrics import Floats
from training.evaluation.object_words import COCO_CATEGORIES, CategoryWords

MIN_SHARE = 0.5  # of the content words that references use
FUNCTION_WORDS = LINKING_WORDS | DANGLING_WORDS


class ObjectNames:
    """What counts as an object, and the boxes of photos."""

    def __init__(self, language: str, instances: Instances | None) -> None:
        """Collect the names of objects.

        Args:
            language: ISO 639 code of the captions.
            instances: boxes of photos; their categories are the objects. None: the 80 categories of COCO in
                English, none in other languages.
        """
        coco = COCO_CATEGORIES if language == "en" else ()
        self.words = CategoryWords(instances.categories if instances else coco)
        self.boxes: Mapping[str, Collection[str]] = (
            {photo.path.name: photo.boxes for photo in instances.photos} if instances else {}
        )  # the categories in each photo, by file name


class Correctness(NamedTuple):
    """Of one caption per photo; (photos,) each."""

    is_right: NDArray[np.bool_]
    objects: Floats  # number of words that name an object
    absent: Floats  # number of those whose object is not in the photo

    @classmethod
    def of(cls, captions: Sequence[str], photos: Sequence[CaptionedPhoto], names: ObjectNames) -> Self:
        """Compare captions with the references of their photos, and with boxes where there are some.

        An object is present if it has a box or a reference names it.

        Args:
            captions: one per photo, tokenized and joined by spaces.
            photos: with their references.
            names: of objects.
        """
        rows = [_compare(*pair, names) for pair in zip(captions, photos, strict=True)]
        shares, objects, absent = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        return cls((shares >= MIN_SHARE) & (absent == 0), objects, absent)

    def subset(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """That of some of the photos."""
        return type(self)(self.is_right[rows], self.objects[rows], self.absent[rows])


def _compare(caption: str, photo: CaptionedPhoto, names: ObjectNames) -> tuple[float, int, int]:
    """The share of the content words that references use, and the numbers of object words and absent ones."""
    words = cut_for_scoring(caption).split()
    references = [cut_for_scoring(detokenize(reference)).split() for reference in photo.captions]
    present = {mention.category for reference in references for mention in names.words.find(reference)}
    present.update(names.boxes.get(photo.path.name, ()))
    named = [mention.category for mention in names.words.find(words)]
    used = {word for reference in references for word in reference}
    content = [word for word in words if word not in FUNCTION_WORDS]
    share = sum(word in used for word in content) / len(content) if content else 0.0
    return share, len(named), sum(category not in present for category in named)
