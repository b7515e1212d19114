"""Training the word detector of a captioner, see ``model.evidence``."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from model import Captioner, DecodingOptions, ModelConfig
from model.checkpoint import Checkpoint, save_checkpoint
from model.network import CaptionNetwork
from model.options import option
from model.vocabulary import Vocabulary
from training.data.batches import encode_captions
from training.data.caption_files import CaptionedPhoto
from training.evaluation.evaluator import Evaluation
from training.runs.heads import (
    BATCH_SIZE,
    MIN_SHARE,
    MIN_STEPS,
    HeadOptions,
    encoded_photos,
    fit_classifier,
    load_head_photos,
    load_start,
    mean_share,
)
from training.runs.initialization import with_new_head, without_confidence
from training.runs.phrase_training import PhraseTable


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
    with torch.no_grad():
        network.evidence.base.copy_(torch.logit(mean_share(shares), eps=MIN_SHARE))
    with encoded_photos(options, network.encoder, config, photos) as features:
        fit_classifier(
            network.evidence,
            features,
            shares,
            torch.tensor(table.idf),
            options.epochs,
            desc="training word detector",
        )
    return replace(start, network=network.cpu(), config=config)


def _without_end(captions: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[index for index in ids if index != Vocabulary.end_id] for ids in captions]


def _with_detector(
    start: Checkpoint, words: int, options: EvidenceOptions
) -> tuple[CaptionNetwork, ModelConfig]:
    """The captioner with an untrained detector and gate instead of those it may have."""
    prefixes = ("evidence.", "decoder.evidence_gate.")
    return with_new_head(start, options.seed, prefixes, evidence=words, evidence_dim=options.width)


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
