"""A training run: its data, its trainer, and the folder it writes."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from model import Captioner, CheckpointInfo, DecodingOptions, ModelConfig
from model.captioner import check_device
from model.checkpoint import MANIFEST, save_checkpoint
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training.config import RunOptions, TrainConfig, network_defaults
from training.data import DataError, EpochSampler, Example, PhotographDataset, batches, read_photographs
from training.evaluate import evaluate_captioner, is_constant
from training.features import FeatureDataset, cached_features
from training.loop import Trainer, TrainingError, uninterrupted

STATE, LOG, LAST, ORIGIN = "state.pt", "log.jsonl", "last", "origin.json"
CONSTANT_MAPS = (
    "warning: the attention looks at the same places for every word. In the first epochs that may pass; if "
    "it lasts, try another --attention, a lower --doubly-stochastic or another --learning-rate."
)


class Run:
    """One training run: its data, its trainer, and the folder it writes."""

    def __init__(self, options: RunOptions, recipe: TrainConfig, network: dict[str, Any]) -> None:
        """``network``: fields of ``ModelConfig``, without the size of the vocabulary.

        Raises:
            DataError, CheckpointError, OptionsError: the data, the network or an option cannot be used.
        """
        check_device(options.device)
        self._options = options
        self._recipe = recipe
        self._train = read_photographs(options.captions, options.images, ("train", "restval"))
        self._val = read_photographs(options.captions, options.images, ("val",))
        if not self._train or not self._val:
            raise DataError(f"{options.captions} needs captioned photographs of the splits train and val.")
        texts = [words for photograph in self._train for words in photograph.captions]
        self._vocabulary = Vocabulary.build(texts, min_count=options.min_count)
        if not self._vocabulary.words:
            raise DataError(f"No word occurs {options.min_count} times; choose a smaller --min-count.")
        self._config = ModelConfig.from_record(
            ModelConfig(vocabulary_size=len(self._vocabulary), **network).as_record()
        )
        torch.manual_seed(self._recipe.seed)
        self._trainer = self._make_trainer(texts)
        self._progress: dict[str, Any] = {
            "epoch": 0,
            "batch": 0,
            "best": -math.inf,
            "losses": [0.0, 0.0],
            "seconds": 0.0,
        }
        self._saved = time.monotonic()

    def _origin(self) -> dict[str, Any]:
        """What a run cannot change on the way: its place in the data, or its weights, would be others."""
        texts = [photograph.captions for photograph in self._train]
        network = json.loads(json.dumps(self._config.as_record()))  # as it will be read back
        return {
            **network,
            "batch_size": self._recipe.batch_size,
            "seed": self._recipe.seed,
            "photographs": len(self._train),
            "captions_sha256": sha256(repr((texts, self._vocabulary.words)).encode()).hexdigest(),
        }

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
        return self._options.output

    def start(self) -> None:
        """Train to the end, or to Ctrl-C; nothing is lost either way.

        Raises:
            TrainingError: there is a run already, or none to go on with, or it had other data.
        """
        if self._options.resume:
            self._check_origin()
            self._progress = self._trainer.restore(self._folder / STATE)
            self._forget_log_after(self._progress["epoch"])
        else:
            self._begin()
        try:
            while self._progress["epoch"] < self._recipe.epochs:
                self._run_epoch()
        except KeyboardInterrupt:
            self._save_state()
            raise

    def _begin(self) -> None:
        # Not ORIGIN: a run that died before its first save left nothing but that, and may begin again.
        if any((self._folder / name).exists() for name in (STATE, MANIFEST)):
            raise TrainingError(
                f"{self._folder} already holds a run or a checkpoint; "
                "go on with --resume, or choose another --output."
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / LOG).unlink(missing_ok=True)  # of the run that died
        (self._folder / ORIGIN).write_text(json.dumps(self._origin(), indent=1) + "\n", encoding="utf-8")

    def _check_origin(self) -> None:
        try:
            before = json.loads((self._folder / ORIGIN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise TrainingError(f"There is no run in {self._folder} to resume.") from None
        if not isinstance(before, dict):
            raise TrainingError(f"{self._folder / ORIGIN} is damaged; choose another --output.")
        now = self._origin()
        before = network_defaults(now) | before  # a run begun before a field was new had its default
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise TrainingError(
                f"The run in {self._folder} had another {', '.join(changed)}; "
                "go on with what it had, or choose another --output."
            )

    def _forget_log_after(self, epoch: int) -> None:
        """A run that died between its log and its state does the epoch again."""
        kept = [line for line in read_log(self._folder) if line["epoch"] <= epoch]
        text = "".join(f"{json.dumps(line)}\n" for line in kept)
        (self._folder / LOG).write_text(text, encoding="utf-8")

    def _run_epoch(self) -> None:
        self._train_epoch()
        trained = time.monotonic()
        epoch = self._progress["epoch"] + 1
        is_validated = epoch % self._options.validate_every == 0 or epoch == self._recipe.epochs
        scores = self._validate() if is_validated else {}
        line = {
            "epoch": epoch,
            "encoder": "frozen" if self._progress["epoch"] < self._recipe.frozen_epochs else "learning",
            "cross_entropy": round(self._progress["losses"][0] / self._progress["batch"], 4),
            "doubly_stochastic": round(self._progress["losses"][1] / self._progress["batch"], 4),
            **{name: scores.get(name) for name in ("cider", "bleu_4", "distinct_captions", "attention")},
            "train_seconds": round(self._progress["seconds"], 1),
            "val_seconds": round(time.monotonic() - trained, 1),
        }
        with (self._folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        found = f", CIDEr {line['cider']}, BLEU-4 {line['bleu_4']}" if is_validated else ""
        tqdm.write(f"epoch {epoch}: loss {line['cross_entropy']}{found}", file=sys.stderr)
        # Exactly uniform maps are no failure to learn: nothing was to be learnt.
        attention = scores.get("attention")
        if attention and is_constant(attention) and attention["uniform_distance"] > 0:
            tqdm.write(CONSTANT_MAPS, file=sys.stderr)
        self._progress |= {"epoch": epoch, "batch": 0, "losses": [0.0, 0.0], "seconds": 0.0}
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
            clock = time.monotonic()
            for batch in bar:
                with uninterrupted():
                    losses = self._trainer.train_on(batch)
                    self._progress["losses"] = [
                        a + b for a, b in zip(self._progress["losses"], losses, strict=True)
                    ]
                    self._progress["batch"] += 1
                    clock, before = time.monotonic(), clock
                    self._progress["seconds"] += clock - before
                bar.set_postfix(loss=f"{self._progress['losses'][0] / self._progress['batch']:.3f}")
                if time.monotonic() - self._saved > 60 * self._options.save_minutes:
                    self._save_state()

    def _dataset(self) -> Dataset[Example]:
        if self._options.features and self._trainer.is_encoder_frozen:
            encoder = self._trainer.network.encoder
            with torch.autocast(
                self._options.device, torch.bfloat16, enabled=self._options.precision == "bf16"
            ):
                features = cached_features(self._options.features, encoder, self._config, self._train)
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
            save_checkpoint(self._folder, network, self._config, self._vocabulary, info)
            self._progress["best"] = scores["cider"]
        return scores

    def _save_state(self) -> None:
        self._trainer.save(self._folder / STATE, self._progress)
        self._saved = time.monotonic()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The epochs of the run in a folder; of a line that was cut off as it was written nothing."""
    path = folder / LOG
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _start_from_frequencies(
    network: CaptionNetwork, vocabulary: Vocabulary, captions: Sequence[Sequence[str]]
) -> None:
    """Let an untrained decoder say each word as often as people do: the first epoch need not learn that."""
    counts = Counter(index for words in captions for index in vocabulary.encode(words))
    counts[vocabulary.end_id] = len(captions)
    frequencies = torch.tensor([counts[index] + 1.0 for index in range(len(vocabulary))])
    with torch.no_grad():
        network.decoder.output.bias.copy_((frequencies / frequencies.sum()).log())
