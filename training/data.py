"""Captioned photographs: reading the file that lists them, and turning them into batches."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from model import CaptioningError, ImageError, ModelConfig, open_image
from model.preprocess import Preprocess
from model.vocabulary import Vocabulary, tokenize

SPLITS = ("train", "restval", "val", "test")
LONGEST_CAPTION = 22  # words; the one caption in a hundred that is longer is cut for training

# Mirrored photographs need mirrored words.
_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}


class DataError(CaptioningError):
    """Captions or photographs that cannot be trained on."""


@dataclass(frozen=True, kw_only=True)
class CaptionedPhotograph:
    """A photograph on disk and what people wrote of it."""

    path: Path
    captions: tuple[tuple[str, ...], ...]  # tokenized
    split: str  # train, restval, val or test

    def read(self) -> Image.Image:
        """The photograph, upright RGB.

        Raises:
            DataError: it is missing or cannot be decoded; the message names it.
        """
        try:
            return open_image(self.path.read_bytes()).image
        except (OSError, ImageError) as error:
            raise DataError(f"The photograph {self.path} cannot be read: {error}") from None


def read_photographs(
    captions: Path, images: Path, splits: Collection[str] = SPLITS
) -> list[CaptionedPhotograph]:
    """The photographs of ``splits`` that a Karpathy JSON file lists, whose files lie in ``images``.

    Those without captions are left out.

    Raises:
        DataError: the file cannot be read, has another form, or names photographs that do not exist.
    """
    photographs = list_photographs(captions, images, splits)
    if missing := [photograph.path for photograph in photographs if not photograph.path.is_file()]:
        raise DataError(f"{len(missing)} photographs of {captions} do not exist, {missing[0]} first.")
    return photographs


def list_photographs(
    captions: Path, images: Path, splits: Collection[str] = SPLITS
) -> list[CaptionedPhotograph]:
    """What ``read_photographs`` gives, without a look at whether the photographs exist.

    Raises:
        DataError: the file cannot be read, or has another form.
    """
    try:
        listed = json.loads(captions.read_text(encoding="utf-8"))["images"]
        everything = [_from_karpathy(entry, images) for entry in listed]
    except OSError as error:
        raise DataError(f"The captions {captions} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{captions} is no Karpathy JSON file ({type(error).__name__}: {error}); it needs a list "
            "'images' of objects with 'filename', 'split' and 'sentences', each sentence with its 'raw' text."
        ) from None
    return [found for found in everything if found.split in splits and found.captions]


def _from_karpathy(entry: dict[str, object], images: Path) -> CaptionedPhotograph:
    sentences = entry["sentences"]
    if not isinstance(sentences, list):
        raise TypeError("'sentences' is no list")
    words = [tuple(tokenize(sentence["raw"])) for sentence in sentences]
    split = str(entry["split"])
    if split not in SPLITS:
        raise ValueError(f"split {split!r}")
    return CaptionedPhotograph(
        path=images / str(entry.get("filepath", "")) / str(entry["filename"]),
        captions=tuple(filter(None, words)),
        split=split,
    )


def mirror_words(words: Sequence[str]) -> tuple[str, ...]:
    """A caption of the mirrored photograph: left and right change places."""
    return tuple(_MIRRORED.get(word, word) for word in words)


class Batch(NamedTuple):
    """Photographs, each once, with all their captions, longest caption first.

    N captions of B photographs; fed to ``CaptionNetwork.read``.
    """

    inputs: Tensor  # (B, 3, S, S) photographs, or (B, L, F) cached features
    owners: Tensor  # (N,) which photograph a caption is of
    words: Tensor  # (N, T) ids to feed, the start token first
    targets: Tensor  # (words,) ids to predict, packed as CaptionNetwork.read packs its logits
    lengths: Tensor  # (N,) words to predict, the end token counted


class Example(NamedTuple):
    """One photograph as the network takes it, and its captions in ids."""

    inputs: Tensor  # (3, S, S), or (L, F)
    captions: list[list[int]]


def collate(examples: Sequence[Example]) -> Batch:
    """Examples as one batch."""
    captions = [(owner, ids) for owner, example in enumerate(examples) for ids in example.captions]
    captions.sort(key=lambda caption: -len(caption[1]))
    feed = [torch.tensor([Vocabulary.start_id, *ids]) for _, ids in captions]
    expect = [torch.tensor([*ids, Vocabulary.end_id]) for _, ids in captions]
    lengths = torch.tensor([len(ids) + 1 for _, ids in captions])
    padded = pad_sequence(expect, batch_first=True, padding_value=Vocabulary.pad_id)
    return Batch(
        inputs=torch.stack([example.inputs for example in examples]),
        owners=torch.tensor([owner for owner, _ in captions]),
        words=pad_sequence(feed, batch_first=True, padding_value=Vocabulary.pad_id),  # (N, T)
        targets=pack_padded_sequence(padded, lengths, batch_first=True).data,
        lengths=lengths,
    )


class Draw(NamedTuple):
    """Which photograph to take, and the seed of everything random that happens to it."""

    photograph: int  # its place in the list of photographs
    seed: int


class PhotographDataset(Dataset[Example]):
    """Training photographs, randomly cropped, mirrored and recoloured."""

    def __init__(
        self, photographs: Sequence[CaptionedPhotograph], vocabulary: Vocabulary, config: ModelConfig
    ) -> None:
        self._photographs = photographs
        self._vocabulary = vocabulary
        self._preprocess = Preprocess(config)
        # Mild: a caption must stay true of what is left of its photograph.
        self._augment = v2.Compose(
            [
                v2.RandomResizedCrop(
                    config.image_size,
                    scale=(0.75, 1.0),
                    ratio=(0.85, 1.18),
                    interpolation=v2.InterpolationMode.BICUBIC,
                ),
                v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            ]
        )

    def __getitem__(self, draw: Draw) -> Example:
        """The drawn photograph, the same for the same seed whatever process asks."""
        photograph = self._photographs[draw.photograph]
        # Squashed first, as when captioning: of a wide photograph a crop would leave half.
        image = self._preprocess.squash(photograph.read())
        is_mirrored = is_mirrored_draw(draw)
        if is_mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.seed)
            image = self._augment(image)
        return Example(self._preprocess(image), encode_captions(photograph, self._vocabulary, is_mirrored))


def is_mirrored_draw(draw: Draw) -> bool:
    """Whether this draw shows the photograph mirrored: half of them do."""
    return random.Random(draw.seed).random() < 0.5


def encode_captions(
    photograph: CaptionedPhotograph, vocabulary: Vocabulary, is_mirrored: bool
) -> list[list[int]]:
    """The captions as ids, of the photograph or of its mirror image."""
    captions = [mirror_words(words) if is_mirrored else words for words in photograph.captions]
    return [vocabulary.encode(words[:LONGEST_CAPTION]) for words in captions]


class EpochSampler:
    """The batches of one epoch in an order that the seed and the epoch alone decide.

    So a run that was stopped can go on in the middle of an epoch with the batches it had not seen.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int, epoch: int, skip: int) -> None:
        """``skip``: how many batches of the epoch were already seen."""
        rng = random.Random(seed * 1_000_003 + epoch)
        order = rng.sample(range(count), count)
        draws = [Draw(index, rng.getrandbits(32)) for index in order]
        self._batches = [draws[at : at + batch_size] for at in range(0, count, batch_size)][skip:]

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def batches(dataset: Dataset[Example], sampler: EpochSampler, *, workers: int) -> Iterator[Batch]:
    """The batches of ``dataset`` in the order of ``sampler``, made by ``workers`` processes.

    Raises:
        DataError: a photograph cannot be read.
    """
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
    try:
        yield from loader
    except DataError as error:
        # From a worker it comes with its traceback as text, and the sentence at the end of that.
        raise DataError(str(error).strip().split(f"{DataError.__name__}: ")[-1]) from None
