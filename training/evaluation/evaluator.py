"""Scores of a captioner on photos with references.

Captions are free-running (the network reads its own words, as in use), one per photo, and scored as text.
Validation during training and ``python -m training.evaluate`` share this.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from model import Caption, Captioner, DecodingOptions, open_image
from model.captioner import BATCH_SIZE
from model.tokenizer import cut_for_scoring, detokenize
from training.data.caption_files import CaptionedPhoto
from training.evaluation.attention_stats import describe_attention
from training.evaluation.breakdown import by_category, by_length, count_faults
from training.evaluation.java_metrics import java_score
from training.evaluation.metrics import CorpusScores, Floats, percent


def caption_photos(
    captioner: Captioner, photos: Sequence[CaptionedPhoto], options: DecodingOptions
) -> list[Caption]:
    """The best caption of every photo, in order, with a progress bar.

    Raises:
        DataError: a photo cannot be read.
        NonFiniteError: the network's output is not finite.
    """
    captions: list[Caption] = []
    for start in tqdm(range(0, len(photos), BATCH_SIZE), desc="captioning", unit="batch", leave=False):
        images = [photo.read() for photo in photos[start : start + BATCH_SIZE]]
        captions += [best for best, *_ in captioner.caption(images, options)]
    return captions


@dataclass(frozen=True)
class Evaluation:
    """Free-running captions of photos, and their scores."""

    photos: Sequence[CaptionedPhoto]
    captions: list[Caption]  # the best of every photo
    options: DecodingOptions  # as used: max_length is that of the checkpoint if none was given
    corpus: CorpusScores

    @classmethod
    def of(cls, captioner: Captioner, photos: Sequence[CaptionedPhoto], options: DecodingOptions) -> Self:
        """Caption photos, at least one, and score the captions against their references.

        Raises:
            DataError: a photo cannot be read.
            NonFiniteError: the network's output is not finite.
        """
        captions = caption_photos(captioner, photos, options)
        corpus = CorpusScores.of([caption.text for caption in captions], references_of(photos))
        return cls(photos, captions, captioner.resolve(options), corpus)

    def scores(self) -> dict[str, Any]:
        """``CorpusScores.summary``, the number of ``images``, and the decoding options.

        Also ``distinct_captions``; ``mean_length`` in words; ``faults``, see ``count_faults``; and
        ``attention``, see ``describe_attention``.
        """
        texts = [caption.text for caption in self.captions]
        decoding = {name: value for name, value in asdict(self.options).items() if name != "num_captions"}
        return {
            "images": len(self.photos),
            **decoding,
            **self.corpus.summary(),
            "distinct_captions": len(set(texts)),
            "mean_length": round(fmean(len(cut_for_scoring(text).split()) for text in texts), 2),
            "faults": count_faults(self.captions),
            "attention": describe_attention(self.captions),
        }

    def confidence(self) -> Floats | None:
        """The confidence of every caption, (photos,); None if the captioner has none."""
        known = [caption.confidence for caption in self.captions if caption.confidence is not None]
        return np.array(known) if len(known) == len(self.captions) else None

    def java_score(self, name: str) -> float:
        """One of ``JAVA_METRICS``, x 100.

        Raises:
            JavaError: it cannot be computed here.
        """
        return java_score(name, [caption.text for caption in self.captions], references_of(self.photos))

    def breakdown(self) -> dict[str, Any]:
        """Scores ``by_length`` of the caption and ``by_category`` of what is in the photo."""
        return {
            "by_length": by_length(self.corpus, self.captions),
            "by_category": by_category(self.corpus, [photo.captions for photo in self.photos]),
        }

    def records(self, images: Path) -> Iterator[dict[str, Any]]:
        """The service's record of every photo, with its ``references`` and its ``cider``.

        ``cider`` (x 100) is that of one caption; the mean over all photos is the CIDEr of the corpus. Photos
        are named by their paths relative to the folder ``images``.

        Raises:
            OSError, ImageError: a photo cannot be read any more.
        """
        references = references_of(self.photos)
        for number, captioned in enumerate(self.photos):
            photo = open_image(captioned.path.read_bytes())
            name = Path(os.path.relpath(captioned.path, images)).as_posix()
            yield {
                **photo.as_record(name, [self.captions[number]], attention=False),
                "references": references[number],
                "cider": percent(self.corpus.cider[number]),
            }


def references_of(photos: Sequence[CaptionedPhoto]) -> list[list[str]]:
    """The references of each photo as they are scored: tokenized and joined by spaces."""
    return [[detokenize(words) for words in photo.captions] for photo in photos]
