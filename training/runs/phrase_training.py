"""Teach a trained captioner which phrases people would use, by which it chooses among its captions.

    python -m training.phrases --checkpoint runs/mine --captions captions.json --images photos/ \\
        --output runs/mine-with-phrases

The captioner itself stays as it is, but for --image-size: a small head beside its decoder is learnt from its
encoder's features. Photos of val and test are not learnt from; on val it is scored with and without.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model import Captioner, CaptioningError, DecodingOptions, ModelConfig, OptionsError
from model.captioner import check_device
from model.checkpoint import MANIFEST, Checkpoint, load_checkpoint, save_checkpoint
from model.network import CaptionNetwork
from model.phrases import PhraseHead
from model.preprocess import Preprocess
from model.vocabulary import Ngram, Vocabulary, count_ngrams
from training.cli import add_set_options
from training.data.batches import encode_captions
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos, pair_sources
from training.data.features import encoded_pairs
from training.engine.config import LARGEST_SEED
from training.errors import DataError
from training.evaluation.evaluator import evaluate_captioner
from training.runs.initialization import checked, take_weights
from training.runs.run_directory import RunFolder

STEP = 128  # photos
LEARNING_RATE = 1e-3  # peak, of AdamW
WEIGHT_DECAY = 0.05
FEATURE_DROPOUT, HIDDEN_DROPOUT = 0.3, 0.2
LEAST_STEPS = 300  # however few the photos are
SMALLEST_SPREAD = 1e-3  # of a feature over photos: what never changes is not to be magnified

References = Sequence[Sequence[int]]  # what people wrote of a photo, in ids


class Recipe(NamedTuple):
    """How phrases are learnt."""

    min_count: int = 20  # training photos of which somebody used a phrase
    width: int = 512  # of the layer between features and phrases
    epochs: int = 12
    seed: int = 0
    precision: str = "fp32"
    image_size: int | None = None  # pixels a side, from here on; None: as it was


class PhraseTable:
    """The phrases that are worth learning."""

    def __init__(self, captions: Sequence[References], *, min_count: int) -> None:
        """The phrases people used of ``min_count`` photos or more.

        Args:
            captions: for each training photo what people wrote, in ids, the end token included.
            min_count: photos.

        Raises:
            DataError: there is no such phrase.
        """
        used: Counter[Ngram] = Counter()
        for of_photo in captions:
            used.update({ngram for ids in of_photo for ngram in _known_ngrams(ids)})
        self.phrases = [ngram for ngram, count in used.most_common() if count >= min_count]
        if not self.phrases:
            raise DataError(f"No phrase was used of {min_count} photos; choose a smaller --min-count.")
        self.idf = [math.log(len(captions) / used[ngram]) for ngram in self.phrases]
        self._places = {ngram: place for place, ngram in enumerate(self.phrases)}

    def shares(self, references: References) -> Tensor:
        """Of one photo: which share of its captions uses each phrase, a sparse vector (P,)."""
        used = Counter(
            self._places[ngram] for ids in references for ngram in _known_ngrams(ids) if ngram in self._places
        )
        places = torch.tensor([list(used)], dtype=torch.long)
        values = torch.tensor(list(used.values()), dtype=torch.float32) / len(references)
        return torch.sparse_coo_tensor(places, values, (len(self.phrases),), check_invariants=False)

    def fill(self, head: PhraseHead) -> None:
        """Write the table into a head of its size."""
        for row, ngram in zip(head.ids, self.phrases, strict=True):
            row[: len(ngram)] = torch.tensor(ngram)
        head.idf.copy_(torch.tensor(self.idf))


def _known_ngrams(ids: Sequence[int]) -> Iterator[Ngram]:
    """The different n-grams of a caption whose words the vocabulary has."""
    return (ngram for ngram in count_ngrams(ids) if Vocabulary.unk_id not in ngram)


class _Examples(NamedTuple):
    """What is learnt from: every photo and its mirror image."""

    pooled: Tensor  # (N, 2, F) mean features
    shares: list[tuple[Tensor, Tensor]]  # N pairs of sparse (P,)


def learn_phrases(
    start: Checkpoint, photos: Sequence[CaptionedPhoto], recipe: Recipe, device: str = "cpu"
) -> Checkpoint:
    """The captioner with a head that was learnt on training ``photos``; progress bars on stderr.

    Raises:
        DataError: a photo cannot be read, or too few of them have phrases in common.
        OptionsError: photos of another size have a grid that the weights are not of.
    """
    captions = [
        [
            [[*ids, Vocabulary.end_id] for ids in encode_captions(photo, start.vocabulary, is_mirrored)]
            for photo in photos
        ]
        for is_mirrored in (False, True)
    ]
    table = PhraseTable(captions[0], min_count=recipe.min_count)
    network, config = _with_head(start, len(table.phrases), recipe)
    network.to(device).eval()
    assert network.phrases is not None
    table.fill(network.phrases)
    shares = [
        (table.shares(plain), table.shares(mirrored)) for plain, mirrored in zip(*captions, strict=True)
    ]
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        pairs = encoded_pairs(network.encoder, Preprocess(config), photos)
        pooled = torch.cat([features.float().mean(dim=2) for features in pairs])  # (N, 2, F)
    _teach(network.phrases, _Examples(pooled, shares), recipe)
    return replace(start, network=network.cpu(), config=config)


def _with_head(start: Checkpoint, phrases: int, recipe: Recipe) -> tuple[CaptionNetwork, ModelConfig]:
    """The captioner with an untrained head; one that it may have had is forgotten."""
    config = checked(
        replace(
            start.config,
            phrases=phrases,
            phrase_dim=recipe.width,
            image_size=start.config.image_size if recipe.image_size is None else recipe.image_size,
        )
    )
    torch.manual_seed(recipe.seed)
    network = CaptionNetwork(config)
    known = start.network.state_dict()
    known = {name: value for name, value in known.items() if not name.startswith("phrases.")}
    take_weights(network, known, config.image_size)
    return network, config


def _teach(head: PhraseHead, examples: _Examples, recipe: Recipe) -> None:
    """Learn to predict the shares; afterwards the head takes features as they are."""
    device = head.idf.device
    mean = examples.pooled.mean(dim=(0, 1))
    spread = examples.pooled.std(dim=(0, 1)).clamp_min(SMALLEST_SPREAD)
    _begin_at_mean(head, examples.shares)
    count = len(examples.pooled)
    batches = _batches(count, recipe)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=len(batches) + 1, pct_start=0.1
    )
    for batch in tqdm(batches, desc="learning phrases", unit="step"):
        mirrored = torch.randint(2, (len(batch),))
        features = ((examples.pooled[batch, mirrored] - mean) / spread).to(device)
        pairs = zip(batch.tolist(), mirrored.tolist(), strict=True)
        wanted = torch.stack([examples.shares[one][side] for one, side in pairs]).to_dense().to(device)
        logits = head.logits(nn.functional.dropout(features, FEATURE_DROPOUT), HIDDEN_DROPOUT)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        loss = (losses * head.idf**2).sum(dim=1).mean()  # as PhraseJudge weighs what is predicted
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        head.hidden.weight.div_(spread.to(device))
        head.hidden.bias.sub_(head.hidden.weight @ mean.to(device))


def _begin_at_mean(head: PhraseHead, shares: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Foretell of every photo what is true of the mean one: that need not be learnt."""
    total = torch.zeros(len(head.idf))
    for plain, _ in shares:
        total += plain
    with torch.no_grad():
        head.output.bias.copy_(torch.logit(total / len(shares), eps=1e-5))
        head.output.weight *= 0.3


def _batches(count: int, recipe: Recipe) -> list[Tensor]:
    """Which photos each step is of: every epoch takes all, in another order; of few, more epochs."""
    epochs = max(recipe.epochs, math.ceil(LEAST_STEPS / math.ceil(count / STEP)))
    return [batch for _ in range(epochs) for batch in torch.split(torch.randperm(count), STEP)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        _run(chosen)
    except KeyboardInterrupt:
        left = (
            f"{chosen.output} is written, not scored" if _is_written(chosen.output) else "nothing was written"
        )
        print(f"\nphrases: stopped; {left}.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"phrases: {error}", file=sys.stderr)
        return 2
    return 0


def _is_written(output: Path) -> bool:
    return (output / MANIFEST).exists()


def _run(chosen: argparse.Namespace) -> None:
    recipe = Recipe(**{name: getattr(chosen, name) for name in Recipe._fields})
    if min(recipe.min_count, recipe.epochs) < 1 or not 0 <= recipe.seed <= LARGEST_SEED:
        raise OptionsError(f"--min-count and --epochs must be at least 1, --seed from 0 to {LARGEST_SEED}.")
    check_device(chosen.device)
    if chosen.output.exists() and not chosen.output.is_dir():
        raise OptionsError(f"--output names {chosen.output}, which is a file; name a folder.")
    RunFolder(chosen.output).check_free()
    start = load_checkpoint(chosen.checkpoint)
    _with_head(start, 1, recipe)  # refuses what cannot be before minutes of reading
    sources = pair_sources(chosen.captions, chosen.images)
    photos = load_photos(sources, check="decode", skip_problems=chosen.skip_problems)
    train = [one for one in photos if one.split in ("train", "restval")]
    val = [one for one in photos if one.split == "val"]
    if not train:
        raise DataError("There are no captioned photos of the split train to learn from.")
    found = learn_phrases(start, train, recipe, chosen.device)
    save_checkpoint(chosen.output, found.network, found.config, found.vocabulary, found.info)
    print(f"{chosen.output}: {found.config.phrases} phrases, learnt from {len(train)} photos.")
    if val:
        captioner = Captioner.load(chosen.output, chosen.device)
        without = evaluate_captioner(captioner, val, DecodingOptions(phrase_weight=0))
        with_them = evaluate_captioner(captioner, val, DecodingOptions())
        print(f"CIDEr on {len(val)} photos of val: {with_them['cider']}, without {without['cider']}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.phrases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_set_options(parser.add_argument_group("data"))
    recipe = Recipe()
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="the captioner to add phrases to")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--skip-problems", action="store_true", help="leave out what python -m training.check lists")
    add(
        "--min-count",
        type=int,
        default=recipe.min_count,
        metavar="N",
        help="photos of which a phrase must have been used, default %(default)s; less for a small set",
    )
    add("--width", type=int, default=recipe.width, metavar="N", help="of the head, default %(default)s")
    add(
        "--epochs",
        type=int,
        default=recipe.epochs,
        metavar="N",
        help=f"default %(default)s; more until there were {LEAST_STEPS} steps of {STEP} photos",
    )
    add(
        "--image-size",
        type=int,
        metavar="N",
        help="pixels a side from here on, default the captioner's own; a little more than it was trained on "
        "may be better (Touvron et al. 2019, arXiv 1906.06423)",
    )
    add("--seed", type=int, default=recipe.seed, metavar="N", help="default %(default)s")
    add(
        "--precision",
        choices=("fp32", "bf16"),
        default=recipe.precision,
        help="of the encoder, default %(default)s",
    )
    add("--device", default="cpu", help="a torch device, default cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
