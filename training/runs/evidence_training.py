"""Training the word detector of a captioner, see ``model.evidence``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from model import Captioner, DecodingOptions, ModelConfig
from model.checkpoint import Checkpoint, save_checkpoint
from model.evidence import WordDetector
from model.network import CaptionNetwork
from model.options import option
from model.vocabulary import Vocabulary
from training.data.batches import encode_captions
from training.data.caption_files import CaptionedPhoto
from training.data.features import cached_features
from training.evaluation.evaluator import Evaluation
from training.runs.heads import (
    BATCH_SIZE,
    FEATURE_DROPOUT,
    HIDDEN_DROPOUT,
    MIN_STD,
    MIN_STEPS,
    HeadOptions,
    fold_normalization,
    gather,
    load_head_photos,
    load_start,
    mean_share,
    minimize,
)
from training.runs.initialization import checked, take_weights, without_confidence
from training.runs.phrase_training import PhraseTable

CELL_DROPOUT = 0.2  # of features, the same in all cells
CELLS = 16  # of an image that a step uses: all 64 cost four times as much and teach little more
STATISTICS_PHOTOS = 500  # that mean and standard deviation of features are taken from
FEATURES = "features.npy"


@dataclass(frozen=True, kw_only=True)
class EvidenceOptions(HeadOptions):
    """How a word detector is trained."""

    min_count: int = option(
        20, "words in the captions of fewer training photos are left out; choose less for a small set", low=1
    )
    width: int = option(256, "hidden units, for the whole photo and for each cell of the grid")
    epochs: int = option(
        5, f"passes over the photos, more if needed for {MIN_STEPS} steps of {BATCH_SIZE} photos", low=1
    )


def train_word_detector(
    start: Checkpoint, photos: Sequence[CaptionedPhoto], options: EvidenceOptions
) -> Checkpoint:
    """Train a word detector on ``photos``; return the captioner with it. Shows progress bars.

    The gate starts from a weight of 1. Features are cached in the output folder while this runs.

    Raises:
        DataError: a photo cannot be read, or too few of them have words in common.
    """
    captions = [
        [_without_end(encode_captions(photo, start.vocabulary, is_mirrored)) for photo in photos]
        for is_mirrored in (False, True)
    ]
    table = PhraseTable(captions[0], min_count=options.min_count, max_words=1)
    network, config = _with_detector(start, len(table.phrases), options)
    network.to(options.device).eval()
    assert network.evidence is not None
    network.evidence.ids.copy_(torch.tensor(table.phrases).squeeze(1))
    shares = [
        (table.shares(plain), table.shares(mirrored)) for plain, mirrored in zip(*captions, strict=True)
    ]
    path = options.output / FEATURES
    path.parent.mkdir(parents=True, exist_ok=True)
    with options.autocast():
        features = cached_features(path, network.encoder, config, photos)
    _fit_detector(network.evidence, features, shares, torch.tensor(table.idf), options.epochs)
    path.unlink()  # large
    path.with_suffix(".sha256").unlink()
    return replace(start, network=network.cpu(), config=config)


def _without_end(captions: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[index for index in ids if index != Vocabulary.end_id] for ids in captions]


def _with_detector(
    start: Checkpoint, words: int, options: EvidenceOptions
) -> tuple[CaptionNetwork, ModelConfig]:
    """The captioner with an untrained detector and gate instead of those it may have."""
    config = checked(replace(start.config, evidence=words, evidence_dim=options.width))
    torch.manual_seed(options.seed)
    network = CaptionNetwork(config)
    known = start.network.state_dict()
    known = {name: value for name, value in known.items() if "evidence" not in name}
    take_weights(network, known, config.image_size)
    return network, config


def _fit_detector(
    detector: WordDetector,
    features: np.ndarray,
    shares: Sequence[tuple[Tensor, Tensor]],
    idf: Tensor,
    epochs: int,
) -> None:
    """Fit the detector; the normalization of features is then folded into its weights.

    Args:
        detector: untrained.
        features: (N, 2, L, F) of every photo and of its mirror image.
        shares: N pairs of sparse (W,), the share of the captions of each that use each word.
        idf: (W,), weight of each word in the loss.
        epochs: at least; more for small sets.
    """
    device = detector.base.device
    mean, std, cell_std = (tensor.to(device) for tensor in _statistics(features))
    with torch.no_grad():  # from the mean shares, so that they need not be learned
        detector.base.copy_(torch.logit(mean_share(shares), eps=1e-5))
        detector.output.bias.copy_(detector.base)
        detector.output.weight *= 0.3
        detector.cell_output.weight *= 0.3

    def loss_of(batch: Tensor, mirrored: Tensor) -> Tensor:
        images = torch.from_numpy(features[batch.numpy(), mirrored.numpy()]).float().to(device)  # (B, L, F)
        overall = nn.functional.dropout((images.mean(dim=1) - mean) / std, FEATURE_DROPOUT)
        cells = (images[:, torch.randperm(images.shape[1])[:CELLS]] - mean) / cell_std
        kept = nn.functional.dropout(torch.ones_like(cells[:, :1]), CELL_DROPOUT)
        logits = detector.overall(overall, HIDDEN_DROPOUT) + detector.pooled(cells * kept, HIDDEN_DROPOUT)
        targets = gather(shares, batch, mirrored).to(device)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * idf.to(device)).sum(dim=1).mean()

    minimize(loss_of, detector.parameters(), len(features), epochs, desc="training word detector")
    fold_normalization(detector.hidden, mean, std)
    fold_normalization(detector.cell_hidden, mean, cell_std)


def _statistics(features: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of features, and their standard deviations over photos and over cells, (F,) each."""
    stride = math.ceil(len(features) / STATISTICS_PHOTOS)
    some = torch.from_numpy(features[::stride, 0]).float()  # (n, L, F)
    pooled = some.mean(dim=1)
    std, cell_std = pooled.std(dim=0), some.flatten(0, 1).std(dim=0)
    return pooled.mean(dim=0), std.clamp_min(MIN_STD), cell_std.clamp_min(MIN_STD)


def add_evidence(options: EvidenceOptions) -> None:
    """Train a word detector, write the captioner with it, and print its CIDEr on val with and without.

    Raises:
        CaptioningError: an option, the checkpoint or the data cannot be used.
    """
    start = without_confidence(load_start(options))
    _with_detector(start, 1, options)  # refuses an impossible network before the photos are read
    train, val = load_head_photos(options)
    trained = train_word_detector(start, train, options)
    save_checkpoint(options.output, trained.network, trained.config, trained.vocabulary, trained.info)
    print(f"{options.output}: evidence of {trained.config.evidence} words, from {len(train)} training photos")
    if val:
        before, after = (
            Evaluation.of(Captioner.load(folder, options.device), val, DecodingOptions()).scores()["cider"]
            for folder in (options.checkpoint, options.output)
        )
        print(f"CIDEr on {len(val)} photos of val: {after}, {before} in {options.checkpoint}")
