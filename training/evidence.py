"""Teach the word detector of a trained captioner which words people would use (see ``model.evidence``).

The captioner itself stays as it is, but for a gate that begins half open. The gate, and a decoder that knows
of the evidence, are learned by training on from the result (``training.fit --start-from``). A detector knows
the images it learned on too well, so that training should be on others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.checkpoint import Checkpoint
from model.evidence import WordDetector
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.captions import CaptionedPhotograph, DataError
from training.data import encode_captions

STEP = 128  # images
LEARNING_RATE = 1e-3  # peak, of AdamW
WEIGHT_DECAY = 0.05
FEATURE_DROPOUT, CELL_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.2, 0.2
CELLS = 16  # cells of an image that a step reads: all of them cost four times as much and teach little more
SMALLEST_SPREAD = 1e-3  # of a feature: what never changes is not to be magnified


class EvidenceRecipe(NamedTuple):
    """How the detector is learned."""

    min_count: int = 20  # images of which somebody used a word
    width: int = 256
    epochs: int = 5
    seed: int = 0


def learn_evidence(
    start: Checkpoint,
    photographs: Sequence[CaptionedPhotograph],
    features: np.ndarray,
    weights: Sequence[float],
    recipe: EvidenceRecipe,
) -> Checkpoint:
    """The captioner with a detector learned on training images; a progress bar on stderr.

    Args:
        start: the captioner, with or without a detector.
        photographs: of the training splits.
        features: (photographs, 2, L, F), with the mirror images, as ``cached_features`` gives them.
        weights: how much each image counts, above 0.
        recipe: how to learn.

    Raises:
        DataError: no word is used often enough.
    """
    captions = [
        [encode_captions(photograph, start.vocabulary, is_mirrored) for photograph in photographs]
        for is_mirrored in (False, True)
    ]
    used = Counter(index for written in captions[0] for index in set().union(*map(set, written)))
    words = [i for i, count in used.most_common() if count >= recipe.min_count and i > Vocabulary.unk_id]
    if not words:
        raise DataError(f"No word was used of {recipe.min_count} images; choose a smaller number.")
    shares = torch.stack([_shares(of_side, words) for of_side in captions], dim=1)  # (N, 2, W)
    config = replace(start.config, evidence=len(words), evidence_dim=recipe.width)
    torch.manual_seed(recipe.seed)
    network = CaptionNetwork(config)
    known = {name: value for name, value in start.network.state_dict().items() if "evidence" not in name}
    network.load_state_dict(known, strict=False)
    assert network.evidence is not None
    network.evidence.ids.copy_(torch.tensor(words))
    _teach(network.evidence, features, shares, torch.tensor(weights), recipe)
    return replace(start, network=network.eval(), config=config)


def _shares(captions: Sequence[Sequence[Sequence[int]]], words: Sequence[int]) -> Tensor:
    """Which share of each image's captions uses each of the words, (N, W)."""
    places = {index: place for place, index in enumerate(words)}
    shares = torch.zeros(len(captions), len(words))
    for row, written in zip(shares, captions, strict=True):
        for index in (index for ids in written for index in set(ids) if index in places):
            row[places[index]] += 1 / len(written)
    return shares


def _teach(
    detector: WordDetector, features: np.ndarray, shares: Tensor, weights: Tensor, recipe: EvidenceRecipe
) -> None:
    """Learn to predict the shares; afterwards the detector takes features as they are."""
    mean, spread, cell_spread = _statistics(features)
    prior = (shares * weights[:, None, None]).sum(dim=(0, 1)) / (2 * weights.sum())
    rarity = -(shares.amax(dim=1) > 0).float().mean(dim=0).clamp_min(1 / len(shares)).log()
    with torch.no_grad():
        detector.base.copy_(torch.logit(prior, eps=1e-5))
        detector.output.bias.copy_(detector.base)
        detector.output.weight *= 0.3
        detector.cell_output.weight *= 0.3
    batches = [b for _ in range(recipe.epochs) for b in torch.split(torch.randperm(len(shares)), STEP)]
    reading = _Reading(detector, mean, spread, cell_spread)
    optimizer = torch.optim.AdamW(reading.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=len(batches) + 1, pct_start=0.1
    )
    for batch in tqdm(batches, desc="learning words", unit="step"):
        side = torch.randint(2, (len(batch),))
        seen = torch.from_numpy(features[batch.numpy(), side.numpy()]).float()  # (B, L, F)
        losses = nn.functional.binary_cross_entropy_with_logits(
            reading(seen), shares[batch, side], reduction="none"
        )
        loss = ((losses * rarity).sum(dim=1) * weights[batch]).sum() / weights[batch].sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    reading.fold()


class _Reading(nn.Module):
    """The detector on normalized features, with dropout, of some of the cells."""

    def __init__(self, detector: WordDetector, mean: Tensor, spread: Tensor, cell_spread: Tensor) -> None:
        super().__init__()
        self.detector = detector
        self.scales = (mean, spread, cell_spread)

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds (B, W)."""
        drop = nn.functional.dropout
        mean, spread, cell_spread = self.scales
        detector = self.detector
        some = features[:, torch.randperm(features.shape[1])[:CELLS]]
        kept = drop(torch.ones(len(features), 1, len(mean)), CELL_DROPOUT)  # the same in all cells
        pooled = drop((features.mean(dim=1) - mean) / spread, FEATURE_DROPOUT)
        hidden = nn.functional.gelu(detector.norm(detector.hidden(pooled)))
        return detector.output(drop(hidden, HIDDEN_DROPOUT)) + detector.pool(
            detector.cells((some - mean) / cell_spread * kept, HIDDEN_DROPOUT)
        )

    @torch.no_grad()
    def fold(self) -> None:
        """Put the normalization into the first layers."""
        mean, spread, cell_spread = self.scales
        for layer, scale in ((self.detector.hidden, spread), (self.detector.cell_hidden, cell_spread)):
            layer.weight.div_(scale)
            layer.bias.sub_(layer.weight @ mean)


def _statistics(features: np.ndarray, most: int = 500) -> tuple[Tensor, Tensor, Tensor]:
    """Of features: their mean, their spread over images when averaged, and over cells, (F,) each."""
    stride = math.ceil(len(features) / most)
    some = torch.from_numpy(features[::stride, 0]).float()  # (n, L, F)
    pooled = some.mean(dim=1)
    spreads = (
        spread.clamp_min(SMALLEST_SPREAD) for spread in (pooled.std(dim=0), some.flatten(0, 1).std(dim=0))
    )
    return (pooled.mean(dim=0), *spreads)
