"""Learning the confidence of a captioner, see ``model.confidence``."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model import Captioner, DecodingOptions
from model.captioner import BATCH_SIZE
from model.checkpoint import Checkpoint, save_checkpoint
from model.confidence import FEATURES, ConfidenceModel
from model.options import option
from model.tokenizer import Words
from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos, pair_sources
from training.data.instances import read_instances
from training.data.splits import SPLITS
from training.errors import DataError
from training.evaluation.calibration import describe_confidence
from training.evaluation.correctness import Correctness, ObjectNames
from training.evaluation.metrics import Floats
from training.evaluation.object_words import CategoryWords
from training.runs.heads import MIN_STD, HeadOptions, fold_normalization, load_start
from training.runs.initialization import with_new_head

FOLDS = 5  # of the cross-validation
L2 = 1.0  # penalty on half the squared weights of standardized features: a standard normal prior
MAX_STEPS = 200  # of LBFGS


@dataclass(frozen=True, kw_only=True)
class ConfidenceOptions(HeadOptions):
    """What the confidence is learnt from."""

    split: str = option("val", "photos to learn from, which the captioner was not trained on", choices=SPLITS)
    instances: Path | None = option(
        None,
        "COCO instances JSON with boxes of some of the photos, for the objects that no caption names",
        kind=Path,
        metavar="FILE",
    )


def add_confidence(options: ConfidenceOptions) -> None:
    """Learn the confidence of a captioner, write the captioner with it, and print its cross-validated scores.

    Raises:
        CaptioningError: an option, the checkpoint or the data cannot be used.
    """
    start = load_start(options)
    names = ObjectNames(
        start.config.language, read_instances(options.instances, None) if options.instances else None
    )
    sets = [
        load_photos(
            [source],
            splits=(options.split,),
            check="decode" if options.skip_problems else "exists",
            skip_problems=options.skip_problems,
        )
        for source in pair_sources(options.captions, options.images)
    ]
    photos = [photo for of_set in sets for photo in of_set]
    if len(photos) < FOLDS:
        raise DataError(
            f"There are {len(photos)} captioned photos of the split {options.split!r}; confidence is learnt "
            f"from {FOLDS} or more, better a thousand."
        )
    confident = _with_model(start, names.words)
    captioner = Captioner(
        confident.network.to(options.device), confident.config, confident.vocabulary, start.info
    )
    with options.autocast():
        features, texts = _described(captioner, photos)
    correctness = Correctness.of(texts, photos, names)
    assert confident.network.confidence is not None
    fit_confidence(confident.network.confidence, features, correctness)
    save_checkpoint(options.output, confident.network, confident.config, confident.vocabulary, confident.info)
    print(f"{options.output}: confidence from {len(photos)} photos; cross-validated in {FOLDS} folds:")
    confidence = cross_validated(features, correctness, options.seed)
    ends = np.cumsum([len(of_set) for of_set in sets])
    rows = dict(zip(map(str, options.captions), np.split(np.arange(len(photos)), ends[:-1]), strict=True))
    if len(rows) > 1:
        rows["all"] = np.arange(len(photos))
    scores = {
        name: describe_confidence(confidence[of_set], correctness.subset(of_set))
        for name, of_set in rows.items()
        if len(of_set)
    }
    print(json.dumps(scores, indent=1))


def _with_model(start: Checkpoint, words: CategoryWords) -> Checkpoint:
    """The captioner with an untrained confidence model instead of the one it may have."""
    table = dict(_names(start.vocabulary, words))
    fields = {"confidence": len(FEATURES), "object_names": len(table)}
    network, config = with_new_head(start, 0, ("confidence.",), **fields)
    assert network.confidence is not None
    network.confidence.fill(table)
    return replace(start, network=network, config=config)


def _names(vocabulary: Vocabulary, words: CategoryWords) -> Iterator[tuple[Ngram, int]]:
    """The phrases that name objects, those of the vocabulary, and the number of each object."""
    if not isinstance(vocabulary.tokens, Words):
        return
    phrases = words.phrases()
    numbers = {name: number for number, name in enumerate(sorted(set(filter(None, phrases.values()))), 1)}
    for phrase, name in phrases.items():
        ids = vocabulary.encode(phrase)
        if 0 < len(ids) <= MAX_NGRAM and vocabulary.unk_id not in ids:
            yield tuple(ids), numbers[name] if name else 0


def _described(captioner: Captioner, photos: Sequence[CaptionedPhoto]) -> tuple[Tensor, list[str]]:
    """The features of the best caption of every photo, (photos, len(FEATURES)), and its text."""
    features: list[Tensor] = []
    texts: list[str] = []
    for start in tqdm(range(0, len(photos), BATCH_SIZE), desc="captioning", unit="batch"):
        encoded = captioner.encode([photo.read() for photo in photos[start : start + BATCH_SIZE]])
        found = captioner.search(encoded, DecodingOptions())
        features += [of_image[0] for of_image in captioner.confidence_features(encoded, found)]
        texts += [captioner.vocabulary.text(best.ids) for best, *_ in found]
    return torch.stack(features), texts


def fit_confidence(model: ConfidenceModel, features: Tensor, correctness: Correctness) -> None:
    """Fit both logistic regressions; the normalization of features is then folded into the weights.

    With an imagined photo of each outcome (Laplace's rule), so that no confidence is 0 or 1.

    Args:
        model: any weights.
        features: (photos, len(FEATURES)).
        correctness: of the same captions.
    """
    features = features.double()
    mean, std = features.mean(dim=0), features.std(dim=0).clamp_min(MIN_STD)
    inputs = torch.cat(((features - mean) / std, features.new_zeros(2, features.shape[1])))
    is_present = torch.from_numpy(np.append(correctness.absent == 0, (True, False)))
    is_right = torch.from_numpy(np.append(correctness.is_right, (True, False)))
    is_counted = is_present.clone()  # by the second regression, which is about captions of what is present
    is_counted[-2:] = True
    layer = torch.nn.Linear(features.shape[1], 2, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = layer(inputs)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.stack((is_present, is_right), dim=1).double(), reduction="none"
        )
        loss: Tensor = losses[:, 0].sum() + losses[is_counted, 1].sum() + L2 / 2 * layer.weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fold_normalization(layer, mean, std)
    model.output.load_state_dict(layer.state_dict())


def cross_validated(features: Tensor, correctness: Correctness, seed: int) -> Floats:
    """The confidence of every caption by a model fitted without the photos of its fold, (photos,)."""
    confidence = np.zeros(len(features))
    folds = np.random.default_rng(seed).permutation(len(features)) % FOLDS
    for fold in range(FOLDS):
        rest, chosen = folds != fold, folds == fold
        model = ConfidenceModel(features.shape[1], 0)
        fit_confidence(model, features[torch.from_numpy(rest)], correctness.subset(rest))
        with torch.no_grad():
            confidence[chosen] = model(features[torch.from_numpy(chosen)]).numpy()
    return confidence
