"""Training the label head of a captioner, see ``model.labels``."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model import ModelConfig
from model.captioner import BATCH_SIZE as ENCODED_AT_ONCE
from model.checkpoint import Checkpoint, save_checkpoint
from model.labels import MAX_LABELS, MIN_PROBABILITY
from model.network import CaptionNetwork
from model.options import option
from model.preprocess import Preprocess
from training.data.caption_files import CaptionedPhoto
from training.data.label_files import LabelFile, read_labels
from training.errors import DataError
from training.runs.heads import (
    BATCH_SIZE,
    MIN_STEPS,
    HeadOptions,
    encoded_photos,
    fit_classifier,
    load_head_photos,
    load_start,
)
from training.runs.initialization import with_new_head


@dataclass(frozen=True, kw_only=True)
class LabelOptions(HeadOptions):
    """How a label head is trained."""

    labels: Path = option(
        kind=Path,
        help="JSON with the probabilities of labels by an image classifier, see above",
        metavar="FILE",
    )
    width: int = option(256, "hidden units, for the whole photo and for each cell of the grid")
    epochs: int = option(
        10, f"passes over the photos, more if needed for {MIN_STEPS} steps of {BATCH_SIZE} photos", low=1
    )


def add_labels(options: LabelOptions) -> None:
    """Train a label head, write the captioner with it, and print its agreement with the classifier on val.

    Raises:
        CaptioningError: an option, the checkpoint or the data cannot be used.
    """
    start = load_start(options)
    known = read_labels(options.labels)
    _with_head(start, known.names, options)  # refuses an impossible network before the photos are read
    train, val = (_labelled(photos, known) for photos in load_head_photos(options))
    if not train:
        raise DataError(
            f"{options.labels} has no photo of the split train; it must name photos by their file names."
        )
    trained = train_label_head(start, train, known, options)
    save_checkpoint(options.output, trained.network, trained.config, trained.vocabulary, trained.info)
    print(f"{options.output}: {len(known.names)} labels, from {len(train)} training photos")
    if val:
        network = trained.network.to(options.device)
        assert network.labels is not None
        with options.autocast(), torch.inference_mode():
            batches = _encoded(network, trained.config, val, options.device)
            log_odds = torch.cat([network.labels(features) for features in batches]).cpu()
        expected = torch.stack([_targets(photo, known) for photo in val]).to_dense()
        found = describe_agreement(log_odds.sigmoid(), expected)
        print(f"agreement with {options.labels} on {len(val)} photos of val: {json.dumps(found)}")


def train_label_head(
    start: Checkpoint, photos: Sequence[CaptionedPhoto], known: LabelFile, options: LabelOptions
) -> Checkpoint:
    """Train a label head on ``photos``, all in the label file; return the captioner with it.

    Shows progress bars. Features are cached in the output folder while this runs.

    Raises:
        DataError: a photo cannot be read.
    """
    network, config = _with_head(start, known.names, options)
    network.to(options.device).eval()
    assert network.labels is not None
    targets = [(share, share) for share in (_targets(photo, known) for photo in photos)]
    with encoded_photos(options, network.encoder, config, photos) as features:
        weights = torch.ones(len(known.names))
        fit_classifier(network.labels, features, targets, weights, options.epochs, desc="training label head")
    return replace(start, network=network.cpu(), config=config)


def _with_head(
    start: Checkpoint, names: Sequence[str], options: LabelOptions
) -> tuple[CaptionNetwork, ModelConfig]:
    """The captioner with an untrained head instead of the one it may have."""
    fields = {"labels": len(names), "label_dim": options.width}
    network, config = with_new_head(start, options.seed, ("labels.",), **fields)
    assert network.labels is not None
    network.labels.fill(names)
    return network, config


def _labelled(photos: Sequence[CaptionedPhoto], known: LabelFile) -> list[CaptionedPhoto]:
    return [photo for photo in photos if photo.path.name in known.photos]


def _targets(photo: CaptionedPhoto, known: LabelFile) -> Tensor:
    """The probabilities of a photo's labels, a sparse vector (K,)."""
    found = known.photos[photo.path.name]
    indices = torch.tensor([list(found)], dtype=torch.long)
    values = torch.tensor(list(found.values()), dtype=torch.float32)
    return torch.sparse_coo_tensor(indices, values, (len(known.names),), check_invariants=False)


def _encoded(
    network: CaptionNetwork, config: ModelConfig, photos: Sequence[CaptionedPhoto], device: str
) -> Iterator[Tensor]:
    """Features of photos, in batches (B, L, F). Shows a progress bar."""
    preprocess = Preprocess(config)
    for start in tqdm(range(0, len(photos), ENCODED_AT_ONCE), desc="encoding photos of val", unit="batch"):
        images = [preprocess(photo.read()) for photo in photos[start : start + ENCODED_AT_ONCE]]
        yield network.encoder(torch.stack(images).to(device))


def describe_agreement(probabilities: Tensor, expected: Tensor) -> dict[str, float]:
    """How well a label head agrees with the classifier it learnt from.

    Args:
        probabilities: (N, K), of N photos by the head.
        expected: (N, K), by the classifier.

    Returns:
        ``top_1``: share of photos whose most probable label is the same, and ``top_5``: whose most probable
        label by the classifier is among the head's first five; ``labels``: mean number of labels that are
        shown, and ``right``: share of these that are among the classifier's first five.
    """
    count = min(MAX_LABELS, expected.shape[1])
    best = expected.argmax(dim=1, keepdim=True)
    values, found = probabilities.topk(count)
    is_shown = values >= MIN_PROBABILITY
    is_right = (found.unsqueeze(2) == expected.topk(count).indices.unsqueeze(1)).any(dim=2)
    shares = {
        "top_1": (found[:, :1] == best).float().mean(),
        "top_5": (found == best).any(dim=1).float().mean(),
        "labels": is_shown.sum(dim=1).float().mean(),
        "right": is_right[is_shown].float().mean() if is_shown.any() else torch.tensor(torch.nan),
    }
    return {name: round(float(share), 3) for name, share in shares.items()}
