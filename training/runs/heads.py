"""Training heads on the features of a trained captioner, whose other weights stay the same."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.captioner import check_device
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import ModelConfig
from model.encoder import Encoder
from model.grid_classifier import GridClassifier
from model.options import check_options, option
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos, pair_sources
from training.data.features import cached_features
from training.engine.config import MAX_SEED
from training.errors import DataError
from training.runs.run_directory import RunDirectory

BATCH_SIZE = 128  # photos
LEARNING_RATE = 1e-3  # peak, of AdamW
WEIGHT_DECAY = 0.05
FEATURE_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.2
MIN_STEPS = 300  # however few the photos are
MIN_STD = 1e-3  # of a feature over photos, so that constant features are not amplified
MIN_SHARE = 1e-5  # of an outcome over photos, so that its log-odds are finite
CELL_DROPOUT = 0.2  # of features, the same in all cells
CELLS = 16  # of an image that a step uses: all 64 cost four times as much and teach little more
STATISTICS_PHOTOS = 500  # that mean and standard deviation of features are taken from
FEATURES = "features.npy"


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


@contextmanager
def encoded_photos(
    options: HeadOptions, encoder: Encoder, config: ModelConfig, photos: Sequence[CaptionedPhoto]
) -> Iterator[np.ndarray]:
    """The features of photos, see ``cached_features``, in the output folder until the block ends.

    Raises:
        DataError: a photo cannot be read.
    """
    path = options.output / FEATURES
    path.parent.mkdir(parents=True, exist_ok=True)
    with options.autocast():
        features = cached_features(path, encoder, config, photos)
    yield features
    path.unlink()  # large
    path.with_suffix(".sha256").unlink()


def fit_classifier(
    classifier: GridClassifier,
    features: np.ndarray,
    shares: Sequence[tuple[Tensor, Tensor]],
    weights: Tensor,
    epochs: int,
    *,
    desc: str,
) -> None:
    """Fit a classifier; the normalization of features is then folded into its weights.

    Args:
        classifier: untrained.
        features: (N, 2, L, F) of every photo and of its mirror image.
        shares: N pairs of sparse (K,), the probability of each outcome for the same.
        weights: (K,), of the outcomes in the loss.
        epochs: at least; more for small sets.
        desc: of the progress bar.
    """
    device = classifier.sharpness.device
    mean, std, cell_std = (tensor.to(device) for tensor in _statistics(features))
    with torch.no_grad():  # from the mean shares, so that they need not be learned
        classifier.output.bias.copy_(torch.logit(mean_share(shares), eps=MIN_SHARE))
        classifier.output.weight *= 0.3
        classifier.cell_output.weight *= 0.3

    def loss_of(batch: Tensor, mirrored: Tensor) -> Tensor:
        images = torch.from_numpy(features[batch.numpy(), mirrored.numpy()]).float().to(device)  # (B, L, F)
        overall = nn.functional.dropout((images.mean(dim=1) - mean) / std, FEATURE_DROPOUT)
        cells = (images[:, torch.randperm(images.shape[1])[:CELLS]] - mean) / cell_std
        kept = nn.functional.dropout(torch.ones_like(cells[:, :1]), CELL_DROPOUT)
        pooled = classifier.pooled(cells * kept, HIDDEN_DROPOUT)
        logits = classifier.overall(overall, HIDDEN_DROPOUT) + pooled
        targets = gather(shares, batch, mirrored).to(device)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * weights.to(device)).sum(dim=1).mean()

    minimize(loss_of, classifier.parameters(), len(features), epochs, desc=desc)
    fold_normalization(classifier.hidden, mean, std)
    fold_normalization(classifier.cell_hidden, mean, cell_std)


def _statistics(features: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of features, and their standard deviations over photos and over cells, (F,) each."""
    stride = math.ceil(len(features) / STATISTICS_PHOTOS)
    some = torch.from_numpy(features[::stride, 0]).float()  # (n, L, F)
    pooled = some.mean(dim=1)
    std, cell_std = pooled.std(dim=0), some.flatten(0, 1).std(dim=0)
    return pooled.mean(dim=0), std.clamp_min(MIN_STD), cell_std.clamp_min(MIN_STD)


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
