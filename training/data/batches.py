"""Captioned photos as batches."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, Self

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from model import ModelConfig
from model.config import MAX_TOKENS
from model.preprocess import Preprocess
from model.vocabulary import Vocabulary
from training.data.caption_files import CaptionedPhoto
from training.errors import DataError

MAX_CAPTION_WORDS = 22  # longer captions, one in a hundred, are truncated for training

# Mirroring a photo swaps these words.
_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}


def mirror_words(words: Sequence[str]) -> tuple[str, ...]:
    """The caption of the mirrored photo: left and right are swapped."""
    return tuple(_MIRRORED.get(word, word) for word in words)


class Batch(NamedTuple):
    """Photos, each once, with all their captions, longest caption first.

    N captions of B photos; fed to ``CaptionNetwork.read``.
    """

    inputs: Tensor  # (B, 3, S, S) photos, or (B, L, F) cached features
    owners: Tensor  # (N,) which photo a caption is of
    words: Tensor  # (N, T) ids to feed, the start token first
    targets: Tensor  # (words,) ids to predict, packed as CaptionNetwork.read packs its logits
    lengths: Tensor  # (N,) words to predict, the end token counted; always on the CPU

    def to(self, device: torch.device) -> Self:
        """The batch on a device, but for ``lengths``."""
        inputs, owners, words, targets = (tensor.to(device) for tensor in self[:-1])
        return self.__class__(inputs, owners, words, targets, self.lengths)

    def references(self) -> list[list[list[int]]]:
        """The captions of each photo as ids to predict."""
        packed = pack_padded_sequence(self.words, self.lengths, batch_first=True)
        targets, _ = pad_packed_sequence(packed._replace(data=self.targets), batch_first=True)  # (N, T)
        captions: list[list[list[int]]] = [[] for _ in self.inputs]
        rows = zip(self.owners.tolist(), targets.tolist(), self.lengths.tolist(), strict=True)
        for owner, ids, length in rows:
            captions[owner].append(ids[:length])
        return captions


class Example(NamedTuple):
    """The network's input for one photo, and its captions as ids to predict, see ``encode_captions``."""

    inputs: Tensor  # (3, S, S), or (L, F)
    captions: list[list[int]]


def collate(examples: Sequence[Example]) -> Batch:
    """Examples as one batch."""
    inputs = torch.stack([example.inputs for example in examples])
    captions = [(owner, ids) for owner, example in enumerate(examples) for ids in example.captions]
    captions.sort(key=lambda caption: -len(caption[1]))
    return as_batch(inputs, captions)


def as_batch(inputs: Tensor, captions: Sequence[tuple[int, Sequence[int]]]) -> Batch:
    """Photos or features with captions as (owner, ids to predict), longest first."""
    expect = [torch.tensor(ids) for _, ids in captions]
    feed = [torch.tensor([Vocabulary.start_id, *ids[:-1]]) for _, ids in captions]
    lengths = torch.tensor([len(ids) for ids in expect])
    assert bool((lengths[:-1] >= lengths[1:]).all())
    padded = pad_sequence(expect, batch_first=True, padding_value=Vocabulary.pad_id)
    return Batch(
        inputs=inputs,
        owners=torch.tensor([owner for owner, _ in captions]),
        words=pad_sequence(feed, batch_first=True, padding_value=Vocabulary.pad_id),  # (N, T)
        targets=pack_padded_sequence(padded, lengths, batch_first=True).data,
        lengths=lengths,
    )


class Draw(NamedTuple):
    """Which photo to take, and the random seed of its augmentation."""

    photo: int  # its index in the list of photos
    seed: int


class PhotoDataset(Dataset[Example]):
    """Training photos with random crops, flips and colours."""

    def __init__(
        self,
        photos: Sequence[CaptionedPhoto],
        vocabulary: Vocabulary,
        config: ModelConfig,
        *,
        end_after_truncation: bool = False,
    ) -> None:
        """``end_after_truncation``: see ``encode_captions``."""
        self._photos = photos
        self._encode = partial(
            encode_captions, vocabulary=vocabulary, end_after_truncation=end_after_truncation
        )
        self._preprocess = Preprocess(config)
        # Mild, so that a caption stays true of the crop.
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
        """The drawn photo; the same seed gives the same example in any process."""
        photo = self._photos[draw.photo]
        # Squashed first, as when captioning, because a crop of a wide photo would lose half of it.
        image = self._preprocess.squash(photo.read())
        is_mirrored = is_mirrored_draw(draw)
        if is_mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.seed)
            image = self._augment(image)
        return Example(self._preprocess(image), self._encode(photo, is_mirrored=is_mirrored))


def is_mirrored_draw(draw: Draw) -> bool:
    """Whether this draw mirrors the photo, as half of all draws do."""
    return random.Random(draw.seed).random() < 0.5


def encode_captions(
    photo: CaptionedPhoto, vocabulary: Vocabulary, is_mirrored: bool, *, end_after_truncation: bool = False
) -> list[list[int]]:
    """The captions of a photo, or of its mirror image, as ids to predict.

    The end token comes last, except after a truncated caption, whose last word is not where a sentence ends.
    Runs that were started by earlier versions also teach it there (``end_after_truncation``).
    """
    captions = []
    for words in photo.captions:
        # Without spaces a caption is one word of any length: what no search can write is not learnt.
        kept = (mirror_words(words) if is_mirrored else words)[:MAX_CAPTION_WORDS]
        ids = vocabulary.encode(kept)
        is_truncated = len(words) > MAX_CAPTION_WORDS or len(ids) > MAX_TOKENS
        has_end = end_after_truncation or not is_truncated
        captions.append([*ids[:MAX_TOKENS], *[Vocabulary.end_id] * has_end])
    return captions


class EpochSampler:
    """The steps of one epoch, in an order that depends only on the seed and the epoch.

    A run can therefore be resumed in the middle of an epoch.
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, epoch: int, skip: int = 0, parts: int = 1
    ) -> None:
        """The photos of an epoch, step by step.

        Args:
            count: photos, at least ``parts``.
            batch_size: photos a step, at least ``parts``; the last steps of the epoch may differ.
            seed: of the run.
            epoch: from 0.
            skip: how many steps of the epoch were already done.
            parts: into how many batches, none of them empty, a step is split: over processes, and over time.
        """
        assert count >= parts
        assert batch_size >= parts
        rng = random.Random(seed * 1_000_003 + epoch)
        order = rng.sample(range(count), count)
        draws = [Draw(index, rng.getrandbits(32)) for index in order]
        # Photos too few to be split join the step before.
        starts = [at for at in range(0, count, batch_size) if count - at >= parts]
        ends = [*starts[1:], count]
        self._steps = [draws[start:end] for start, end in zip(starts, ends, strict=True)][skip:]
        self._parts = parts

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def part_of(self, rank: int, processes: int) -> list[list[Draw]]:
        """The batches that one of the processes reads, ``parts / processes`` for each step."""
        each = self._parts // processes
        mine = range(rank * each, (rank + 1) * each)
        return [step[part :: self._parts] for step in self._steps for part in mine]


def batches(dataset: Dataset[Example], draws: Sequence[list[Draw]], *, workers: int) -> Iterator[Batch]:
    """The batches of ``dataset`` in the order of ``draws``, made by ``workers`` processes.

    Raises:
        DataError: a photo cannot be read.
    """
    loader = DataLoader(dataset, batch_sampler=draws, collate_fn=collate, num_workers=workers)
    try:
        yield from loader
    except DataError as error:
        # From a worker it comes with its traceback as text, and the sentence at the end of that.
        raise DataError(str(error).strip().split(f"{DataError.__name__}: ")[-1]) from None
