"""Train a captioner on captioned photographs.

    python -m training.fit --captions ../shared/data/flickr8k/captions.json \\
        --images ../shared/data/flickr8k/images --output runs/flickr8k \\
        --encoder-weights ../shared/weights/efficientnet_v2_b0.safetensors --cache-features

writes to runs/flickr8k: a checkpoint of the best epoch (as in checkpoints/default), last/ with that of
the last, log.jsonl with a line an epoch, and state.pt, from which ``--resume`` goes on where the run
was stopped, in the middle of an epoch too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from model import Captioner, CaptioningError, CheckpointInfo, DecodingOptions, ModelConfig
from model.checkpoint import save_checkpoint
from model.encoder import encoder_names
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.config import TrainConfig, usable_device
from training.data import (
    DataError,
    EpochSampler,
    Example,
    PhotographDataset,
    batches,
    read_photographs,
)
from training.evaluate import evaluate_captioner
from training.features import FeatureDataset, cached_features
from training.loop import Trainer, TrainingError, uninterrupted

STATE, LOG, LAST = "state.pt", "log.jsonl", "last"


class Run:
    """One training run: its data, its trainer, and the folder it writes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._recipe = TrainConfig(
            **{field.name: getattr(options, field.name) for field in fields(TrainConfig)}
        )
        photographs = [p for p in read_photographs(options.captions, options.images) if p.captions]
        self._train = [p for p in photographs if p.split in ("train", "restval")]
        self._val = [p for p in photographs if p.split == "val"]
        if not self._train or not self._val:
            raise DataError(f"{options.captions} needs captioned photographs of the splits train and val.")
        texts = [words for photograph in self._train for words in photograph.captions]
        self._vocabulary = Vocabulary.build(texts, min_count=options.min_count)
        self._config = ModelConfig(
            vocabulary_size=len(self._vocabulary), encoder=options.encoder, image_size=options.image_size
        )
        torch.manual_seed(self._recipe.seed)
        self._trainer = self._make_trainer(texts)
        self._progress: dict[str, Any] = {"epoch": 0, "batch": 0, "best": -math.inf, "losses": [0.0, 0.0]}
        self._saved = time.monotonic()

    def _make_trainer(self, texts: Sequence[Sequence[str]]) -> Trainer:
        network = CaptionNetwork(self._config)
        if not self._options.resume and self._options.encoder_weights != "none":
            source = self._options.encoder_weights
            network.encoder.load_pretrained(None if source == "published" else Path(source))
        _start_from_frequencies(network, self._vocabulary, texts)
        return Trainer(
            network.to(self._options.device),
            self._recipe,
            steps_per_epoch=math.ceil(len(self._train) / self._recipe.batch_size),
            bfloat16=self._options.precision == "bf16",
        )

    @property
    def _folder(self) -> Path:
        folder: Path = self._options.output
        return folder

    def start(self) -> None:
        """Train to the end, or to Ctrl-C; nothing is lost either way."""
        if self._options.resume:
            self._progress = self._trainer.restore(self._folder / STATE)
        elif (self._folder / STATE).exists():
            raise TrainingError(
                f"{self._folder} already holds a run; go on with --resume, or choose another --output."
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            while self._progress["epoch"] < self._recipe.epochs:
                self._run_epoch()
        except KeyboardInterrupt:
            self._save_state()
            raise

    def _run_epoch(self) -> None:
        started = time.monotonic()
        self._train_epoch()
        trained = time.monotonic()
        scores = self._validate()
        line = {
            "epoch": self._progress["epoch"] + 1,
            "encoder": "frozen" if self._progress["epoch"] < self._recipe.frozen_epochs else "learning",
            "cross_entropy": round(self._progress["losses"][0] / self._progress["batch"], 4),
            "doubly_stochastic": round(self._progress["losses"][1] / self._progress["batch"], 4),
            **{name: scores[name] for name in ("cider", "bleu_4", "distinct_captions", "attention")},
            "train_seconds": round(trained - started, 1),
            "val_seconds": round(time.monotonic() - trained, 1),
        }
        with (self._folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        tqdm.write(
            f"epoch {line['epoch']}: loss {line['cross_entropy']}, "
            f"CIDEr {line['cider']}, BLEU-4 {line['bleu_4']}"
        )
        self._progress |= {"epoch": self._progress["epoch"] + 1, "batch": 0, "losses": [0.0, 0.0]}
        self._save_state()

    def _train_epoch(self) -> None:
        epoch = self._progress["epoch"]
        sampler = EpochSampler(
            len(self._train),
            self._recipe.batch_size,
            seed=self._recipe.seed,
            epoch=epoch,
            skip=self._progress["batch"],
        )
        loader = batches(self._dataset(), sampler, workers=self._options.workers)
        title = f"epoch {epoch + 1}/{self._recipe.epochs}"
        with tqdm(
            loader,
            desc=title,
            unit="batch",
            initial=self._progress["batch"],
            total=len(sampler) + self._progress["batch"],
        ) as bar:
            for batch in bar:
                with uninterrupted():
                    losses = self._trainer.train_on(batch)
                    self._progress["losses"] = [
                        a + b for a, b in zip(self._progress["losses"], losses, strict=True)
                    ]
                    self._progress["batch"] += 1
                bar.set_postfix(loss=f"{self._progress['losses'][0] / self._progress['batch']:.3f}")
                if time.monotonic() - self._saved > 60 * self._options.save_minutes:
                    self._save_state()

    def _dataset(self) -> Dataset[Example]:
        if self._options.cache_features and self._trainer.is_encoder_frozen:
            encoder = self._trainer.network.encoder
            with torch.autocast(
                self._options.device, torch.bfloat16, enabled=self._options.precision == "bf16"
            ):
                features = cached_features(self._folder / "features.npy", encoder, self._config, self._train)
            return FeatureDataset(self._train, self._vocabulary, features)
        return PhotographDataset(self._train, self._vocabulary, self._config)

    def _validate(self) -> dict[str, Any]:
        """Score the averaged network on val, and keep it as last and, if it is, as best."""
        network = self._trainer.averaged
        info = CheckpointInfo(
            name=self._options.name, licence=self._options.licence, trained_on=self._options.trained_on
        )
        captioner = Captioner(network, self._config, self._vocabulary, info)
        scores = evaluate_captioner(captioner, self._val, DecodingOptions())
        save_checkpoint(self._folder / LAST, network, self._config, self._vocabulary, info)
        if scores["cider"] > self._progress["best"]:
            self._progress["best"] = scores["cider"]
            save_checkpoint(self._folder, network, self._config, self._vocabulary, info)
        return scores

    def _save_state(self) -> None:
        self._trainer.save(self._folder / STATE, self._progress)
        self._saved = time.monotonic()


def _start_from_frequencies(
    network: CaptionNetwork, vocabulary: Vocabulary, captions: Sequence[Sequence[str]]
) -> None:
    """Let an untrained decoder say each word as often as people do: the first epoch need not learn that."""
    counts = Counter(index for words in captions for index in vocabulary.encode(words))
    counts[vocabulary.end_id] = len(captions)
    frequencies = torch.tensor([counts[index] + 1.0 for index in range(len(vocabulary))])
    with torch.no_grad():
        network.decoder.output.bias.copy_((frequencies / frequencies.sum()).log())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        Run(options).start()
    except KeyboardInterrupt:
        can_go_on = (options.output / STATE).exists()
        what_next = (
            "the same command with --resume goes on from here" if can_go_on else "nothing was done yet"
        )
        print(f"\nfit: stopped; {what_next}.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    return 0


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--captions", type=Path, required=True, metavar="FILE", help="Karpathy JSON")
    add("--images", type=Path, required=True, metavar="DIR", help="where its photographs lie")
    add("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    add("--resume", action="store_true", help="go on with the run in --output")
    add(
        "--encoder",
        choices=encoder_names(),
        default="efficientnet_v2_b0",
        metavar="NAME",
        help="efficientnet_v2_b0 (default), tiny_cnn, or a torchvision classification CNN such as resnet50",
    )
    add(
        "--encoder-weights",
        default="published",
        metavar="FILE",
        help="a file of pretrained weights, 'published' for torchvision's own (default), or 'none'",
    )
    add(
        "--image-size",
        type=int,
        default=224,
        metavar="PIXELS",
        help="side of the encoder's input, default 224",
    )
    add(
        "--cache-features",
        action="store_true",
        help="compute the frozen encoder's features once and keep them in RUN (0.25 MB a photograph)",
    )
    add(
        "--min-count",
        type=int,
        default=5,
        metavar="N",
        help="words rarer than this become unknown, default 5",
    )
    add(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="bf16 is faster where the hardware has it (recent server CPUs and GPUs)",
    )
    add(
        "--device",
        type=usable_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="default: a GPU if there is one",
    )
    add("--workers", type=_whole_number, default=1, metavar="N", help="reading processes, default 1")
    add("--save-minutes", type=float, default=3, metavar="M", help="most work a crash can lose, default 3")
    add("--name", default="captioner", help="name kept in the checkpoint")
    add("--licence", default="unstated", help="terms of the weights, kept in the checkpoint")
    add("--trained-on", default="unstated", help="what the data is, kept in the checkpoint")
    recipe = parser.add_argument_group("recipe")
    for name, value in asdict(TrainConfig()).items():
        recipe.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            metavar="X",
            help=f"default {value}",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
