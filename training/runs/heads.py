"""Training heads on the features of a trained captioner, whose other weights stay the same."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.captioner import check_device
from model.checkpoint import Checkpoint, load_checkpoint
from model.options import check_options, option
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos, pair_sources
from training.engine.config import MAX_SEED
from training.errors import DataError
from training.runs.run_directory import RunDirectory

BATCH_SIZE = 128  # photos
LEARNING_RATE = 1e-3  # peak, of AdamW
WEIGHT_DECAY = 0.05
FEATURE_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.2
MIN_STEPS = 300  # however few the photos are
MIN_STD = 1e-3  # of a feature over photos, so that constant features are not amplified


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Which captioner gets a head, from which data, and where it is written."""

    checkpoint: Path
    captions: tuple[Path, ...]  # files in any format of training/data/caption_files.py
    images: tuple[Path, ...]  # for each, the folder of its photos
    output: Path
    skip_problems: bool = option(
        False, "leave out the photos that python -m training.check reports, instead of stopping"
    )
    seed: int = option(0, "random seed", low=0, high=MAX_SEED)
    precision: str = option("fp32", "precision of the encoder", choices=("fp32", "bf16"))
    device: str = option("cpu", "torch device")

    def __post_init__(self) -> None:
        """Raise OptionsError, naming the option, for a value outside its limits."""
        check_options(self, flags=True)

    def autocast(self) -> torch.autocast:
        """Context of the encoder."""
        is_bf16 = self.precision == "bf16"
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=is_bf16)


class HeadPhotos(NamedTuple):
    """The photos of a data set that have captions."""

    train: list[CaptionedPhoto]
    val: list[CaptionedPhoto]


def load_start(options: HeadOptions) -> Checkpoint:
    """The captioner, after everything that can be checked before the photos are read.

    Raises:
        CaptioningError: an option or the checkpoint cannot be used.
    """
    check_device(options.device)
    RunDirectory(options.output).check(resume=False)
    pair_sources(options.captions, options.images)
    return load_checkpoint(options.checkpoint)


def load_head_photos(options: HeadOptions) -> HeadPhotos:
    """The photos to train on and to score.

    Raises:
        DataError: the data cannot be used.
    """
    sources = pair_sources(options.captions, options.images)
    photos = load_photos(sources, check="decode", skip_problems=options.skip_problems)
    train = [photo for photo in photos if photo.split in ("train", "restval")]
    if not train:
        raise DataError("The split train has no captioned photos; training needs some.")
    return HeadPhotos(train, [photo for photo in photos if photo.split == "val"])


def minimize(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    photos: int,
    epochs: int,
    *,
    desc: str,
) -> None:
    """Minimize a loss over photos, half of them mirrored. Shows a progress bar.

    Args:
        loss_of: the loss of a batch, from the places of its photos (B,) and whether each is mirrored, 0 or 1.
        parameters: to train.
        photos: their number.
        epochs: at least; more for small sets.
        desc: of the progress bar.
    """
    epochs = max(epochs, math.ceil(MIN_STEPS / math.ceil(photos / BATCH_SIZE)))
    batches = [batch for _ in range(epochs) for batch in torch.split(torch.randperm(photos), BATCH_SIZE)]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=len(batches) + 1, pct_start=0.1
    )
    for batch in tqdm(batches, desc=desc, unit="step"):
        loss = loss_of(batch, torch.randint(2, (len(batch),)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def gather(shares: Sequence[tuple[Tensor, Tensor]], batch: Tensor, mirrored: Tensor) -> Tensor:
    """The sparse targets of a batch, dense, from those of every photo and of its mirror image."""
    pairs = zip(batch.tolist(), mirrored.tolist(), strict=True)
    return torch.stack([shares[one][side] for one, side in pairs]).to_dense()


def mean_share(shares: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of sparse targets over all photos."""
    total = shares[0][0].to_dense()
    for plain, _ in shares[1:]:
        total = total + plain
    return total / len(shares)


@torch.no_grad()
def fold_normalization(layer: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Let a layer that was trained on normalized features take them as they are."""
    layer.weight.div_(std.to(layer.weight))
    layer.bias.sub_(layer.weight @ mean.to(layer.weight))
