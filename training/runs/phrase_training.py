"""Training the phrase head of a captioner, which scores captions by the phrases people would use."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from model import Captioner, DecodingOptions, ModelConfig
from model.checkpoint import Checkpoint, save_checkpoint
from model.network import CaptionNetwork
from model.options import option
from model.phrases import PhraseHead
from model.preprocess import Preprocess
from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary, count_ngrams
from training.data.batches import encode_captions
from training.data.caption_files import CaptionedPhoto
from training.data.features import encoded_pairs
from training.errors import DataError
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
from training.runs.initialization import with_new_head, without_confidence

References = Sequence[Sequence[int]]  # captions of a photo, as ids


@dataclass(frozen=True, kw_only=True)
class PhraseOptions(HeadOptions):
    """How a phrase head is trained."""

    min_count: int = option(
        20,
        "phrases in the captions of fewer training photos are left out; choose less for a small set",
        low=1,
    )
    width: int = option(512, "hidden units")
    epochs: int = option(
        12, f"passes over the photos, more if needed for {MIN_STEPS} steps of {BATCH_SIZE} photos", low=1
    )
    image_size: int | None = option(
        None,
        "new input size in pixels a side, default that of the captioner; slightly more than in its training "
        "may be better (Touvron et al. 2019, arXiv 1906.06423)",
        kind=int,
    )


class PhraseTable:
    """The phrases that a head predicts."""

    def __init__(self, captions: Sequence[References], *, min_count: int, max_words: int = MAX_NGRAM) -> None:
        """Collect the phrases in the ``captions`` (see ``encode_captions``) of at least ``min_count`` photos.

        ``max_words``: of a phrase.

        Raises:
            DataError: there is no such phrase.
        """
        self._max_words = max_words
        used: Counter[Ngram] = Counter()
        for references in captions:
            used.update({ngram for ids in references for ngram in self._ngrams(ids)})
        self.phrases = [ngram for ngram, count in used.most_common() if count >= min_count]
        if not self.phrases:
            raise DataError(
                f"No phrase is in the captions of {min_count} photos; choose a smaller --min-count."
            )
        self.idf = [math.log(len(captions) / used[ngram]) for ngram in self.phrases]
        self._index = {ngram: index for index, ngram in enumerate(self.phrases)}

    def shares(self, references: References) -> Tensor:
        """Share of a photo's captions that contain each phrase, a sparse vector (P,)."""
        used = Counter(
            self._index[ngram] for ids in references for ngram in self._ngrams(ids) if ngram in self._index
        )
        indices = torch.tensor([list(used)], dtype=torch.long)
        values = torch.tensor(list(used.values()), dtype=torch.float32) / len(references)
        return torch.sparse_coo_tensor(indices, values, (len(self.phrases),), check_invariants=False)

    def fill(self, head: PhraseHead) -> None:
        """Copy the table into a head of its size."""
        for row, ngram in zip(head.ids, self.phrases, strict=True):
            row[: len(ngram)] = torch.tensor(ngram)
        head.idf.copy_(torch.tensor(self.idf))

    def _ngrams(self, ids: Sequence[int]) -> Iterator[Ngram]:
        """The distinct n-grams of a caption without unknown words."""
        ngrams = count_ngrams(ids, self._max_words)
        return (ngram for ngram in ngrams if Vocabulary.unk_id not in ngram)


def train_phrase_head(
    start: Checkpoint, photos: Sequence[CaptionedPhoto], options: PhraseOptions
) -> Checkpoint:
    """Train a phrase head on ``photos``; return the captioner with it. Shows progress bars.

    Raises:
        DataError: a photo cannot be read, or too few of them have phrases in common.
        OptionsError: images of the new size have another grid than the weights.
    """
    captions = [
        [encode_captions(photo, start.vocabulary, is_mirrored) for photo in photos]
        for is_mirrored in (False, True)
    ]
    table = PhraseTable(captions[0], min_count=options.min_count)
    network, config = _with_head(start, len(table.phrases), options)
    network.to(options.device).eval()
    assert network.phrases is not None
    table.fill(network.phrases)
    shares = [
        (table.shares(plain), table.shares(mirrored)) for plain, mirrored in zip(*captions, strict=True)
    ]
    with options.autocast():
        pairs = encoded_pairs(network.encoder, Preprocess(config), photos)
        pooled = torch.cat([features.float().mean(dim=2) for features in pairs])  # (N, 2, F)
    _fit_head(network.phrases, pooled, shares, options.epochs)
    return replace(start, network=network.cpu(), config=config)


def _with_head(start: Checkpoint, phrases: int, options: PhraseOptions) -> tuple[CaptionNetwork, ModelConfig]:
    """The captioner with an untrained head instead of the one it may have."""
    size = start.config.image_size if options.image_size is None else options.image_size
    fields = {"phrases": phrases, "phrase_dim": options.width, "image_size": size}
    return with_new_head(start, options.seed, ("phrases.",), **fields)


def _fit_head(head: PhraseHead, pooled: Tensor, shares: Sequence[tuple[Tensor, Tensor]], epochs: int) -> None:
    """Fit the head; the normalization of features is then folded into its weights.

    Args:
        head: untrained.
        pooled: (N, 2, F) mean features of every photo and of its mirror image.
        shares: N pairs of sparse (P,), for the same.
        epochs: at least; more for small sets.
    """
    device = head.idf.device
    mean = pooled.mean(dim=(0, 1))
    std = pooled.std(dim=(0, 1)).clamp_min(MIN_STD)
    with torch.no_grad():  # from the mean shares, so that they need not be learned
        head.output.bias.copy_(torch.logit(mean_share(shares), eps=1e-5))
        head.output.weight *= 0.3

    def loss_of(batch: Tensor, mirrored: Tensor) -> Tensor:
        features = ((pooled[batch, mirrored] - mean) / std).to(device)
        targets = gather(shares, batch, mirrored).to(device)
        logits = head.logits(nn.functional.dropout(features, FEATURE_DROPOUT), HIDDEN_DROPOUT)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * head.idf**2).sum(dim=1).mean()  # as PhraseScorer weighs what is predicted

    minimize(loss_of, head.parameters(), len(pooled), epochs, desc="training phrase head")
    fold_normalization(head.hidden, mean, std)


def add_phrases(options: PhraseOptions) -> None:
    """Train a phrase head, write the captioner with it, and print its CIDEr on val with and without.

    Raises:
        CaptioningError: an option, the checkpoint or the data cannot be used.
    """
    start = without_confidence(load_start(options))
    _with_head(start, 1, options)  # refuses an impossible network before the photos are read
    train, val = load_head_photos(options)
    trained = train_phrase_head(start, train, options)
    save_checkpoint(options.output, trained.network, trained.config, trained.vocabulary, trained.info)
    print(f"{options.output}: {trained.config.phrases} phrases, from {len(train)} training photos")
    if val:
        captioner = Captioner.load(options.output, options.device)
        without = Evaluation.of(captioner, val, DecodingOptions(phrase_weight=0)).scores()
        reranked = Evaluation.of(captioner, val, DecodingOptions()).scores()
        print(f"CIDEr on {len(val)} photos of val: {reranked['cider']}, {without['cider']} without phrases")
