"""A training run: its data, its trainer, and what it leaves behind after every epoch."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from model import Captioner, CheckpointInfo, DecodingOptions, OptionsError
from model.captioner import check_device
from model.checkpoint import save_checkpoint
from model.vocabulary import Vocabulary
from training.data.batches import (
    LONGEST_CAPTION,
    Batch,
    Draw,
    EpochSampler,
    Example,
    PhotoDataset,
    batches,
    encode_captions,
)
from training.data.caption_files import CaptionedPhoto
from training.data.features import FeatureDataset, cached_features
from training.engine import distributed
from training.engine.cider_reward import CiderReward
from training.engine.config import RunOptions, TrainConfig
from training.engine.objective import Phase
from training.engine.trainer import Report, Trainer, uninterrupted
from training.errors import DataError, DivergedError, TrainingError
from training.evaluation.evaluator import evaluate_captioner, is_constant
from training.reporting.reporter import Journal
from training.runs.initialization import begin
from training.runs.run_directory import RunFolder

CONSTANT_MAPS = (
    "warning: the attention looks at the same places for every word. In the first epochs that may pass; if "
    "it lasts, try another --attention, a lower --doubly-stochastic or another --learning-rate."
)
# What the log has of an epoch that was validated, and null else.
SCORES = (
    *("checkpoint_sha256", "beam_size", "length_penalty", "phrase_weight", "max_length"),
    *("cider", "bleu_4", "distinct_captions", "mean_length", "faults", "attention"),
)
NAMED = 8  # photos of a batch that went wrong


class Run:
    """One training run."""

    def __init__(
        self,
        options: RunOptions,
        recipe: TrainConfig,
        network: dict[str, Any],
        photos: Sequence[CaptionedPhoto],
    ) -> None:
        """A run that has not begun yet.

        Args:
            options: what it works on and with.
            recipe: how it trains.
            network: those fields of ``ModelConfig`` that are not to be the default, or what the start has.
            photos: as ``load_photos`` gives them.

        Raises:
            DataError, CheckpointError, OptionsError: the data, the network or an option cannot be used.
        """
        check_device(options.device)
        self._options = options
        self._recipe = recipe
        self._folder = RunFolder(options.output)
        self._train = [one for one in photos if one.split in ("train", "restval")]
        self._val = [one for one in photos if one.split == "val"]
        if not self._train or not self._val:
            raise DataError(
                f"{', '.join(map(str, options.captions))}: a run needs captioned photos of the splits "
                f"train and val; there are {len(self._train)} and {len(self._val)}."
            )
        self._check_parts()
        texts = [words for photo in self._train for words in photo.captions]
        started, self._config, self._vocabulary = begin(options, network, texts, recipe.seed)
        self._trainer = Trainer(
            started.to(options.device),
            recipe,
            steps_per_epoch=len(self._sampler(epoch=0)),
            precision=options.precision,
            reward=CiderReward(self._references()) if recipe.self_critical_epochs else None,
            longest=max(LONGEST_CAPTION, self._config.caption_length),
        )
        self._journal = Journal(self._folder, self._val, recipe.seed) if distributed.is_first() else None
        self._progress: dict[str, Any] = {"epoch": 0, "best": -math.inf, **_NOTHING_OF_EPOCH}
        self._saved = time.monotonic()

    def _check_parts(self) -> None:
        parts = self._parts
        if min(self._recipe.batch_size, len(self._train)) < parts:
            raise OptionsError(
                f"{distributed.processes()} processes x --accumulate {self._options.accumulate} split a step "
                f"in {parts}; it needs a --batch-size, and photos, of at least as many."
            )

    def _references(self) -> Iterator[list[list[int]]]:
        """For each training photo its captions in ids, the end token included."""
        for photo in self._train:
            captions = encode_captions(photo, self._vocabulary, is_mirrored=False)
            yield [[*ids, Vocabulary.end_id] for ids in captions]

    def _sampler(self, *, epoch: int, skip: int = 0) -> EpochSampler:
        size, seed = self._recipe.batch_size, self._recipe.seed
        return EpochSampler(len(self._train), size, seed=seed, epoch=epoch, skip=skip, parts=self._parts)

    @property
    def _parts(self) -> int:
        """Into how many batches a step is split."""
        return distributed.processes() * self._options.accumulate

    def _origin(self) -> dict[str, Any]:
        """What a run cannot change on the way: its place in the data, or its weights, would be others."""
        texts = [photo.captions for photo in self._train]
        val = [(photo.path.name, photo.captions) for photo in self._val]
        network = json.loads(json.dumps(self._config.as_record()))  # as it will be read back
        return {
            **network,
            "batch_size": self._recipe.batch_size,
            "seed": self._recipe.seed,
            "photographs": len(self._train),
            "steps_per_epoch": len(self._sampler(epoch=0)),  # which the number of processes may change
            "captions_sha256": sha256(repr((texts, self._vocabulary.words)).encode()).hexdigest(),
            "val_sha256": sha256(repr(val).encode()).hexdigest(),
        }

    def start(self) -> None:
        """Train to the end, or to Ctrl-C, which loses nothing where one process trains.

        Raises:
            TrainingError: there is a run already, or none to go on with, or it had other data.
        """
        if self._options.resume:
            self._folder.check_origin(self._origin())
            self._progress = self._trainer.restore(self._folder.state)
            if distributed.is_first():
                self._folder.forget_log_after(self._progress["epoch"])
        elif distributed.is_first():
            self._folder.begin(self._origin())
        if self._journal:
            self._journal.open(step=self._trainer.step, epoch=self._progress["epoch"])
        try:
            while self._progress["epoch"] < self._recipe.epochs:
                self._run_epoch()
        except KeyboardInterrupt:
            self._save_state()
            raise
        finally:
            if self._journal:
                self._journal.close()

    def _run_epoch(self) -> None:
        phase = self._trainer.begin_epoch(self._progress["epoch"])
        self._train_epoch(phase)
        epoch = self._progress["epoch"] + 1
        if self._journal:
            self._conclude_epoch(epoch, phase, self._journal)
        distributed.wait()
        self._progress |= {"epoch": epoch, **_NOTHING_OF_EPOCH}
        self._save_state()

    def _conclude_epoch(self, epoch: int, phase: Phase, journal: Journal) -> None:
        """Validate, and write down what the epoch gave."""
        trained = time.monotonic()
        is_validated = epoch % self._options.validate_every == 0 or epoch == self._recipe.epochs
        captioner = self._captioner()
        scores = self._validate(captioner) if is_validated else {}
        means = Report(*(round(total / self._progress["steps"], 4) for total in self._progress["sums"]))
        is_rewarded = phase is Phase.SELF_CRITICAL
        line = {
            "epoch": epoch,
            "phase": phase,
            "cross_entropy": None if is_rewarded else means.cross_entropy,
            "reward": means.reward if is_rewarded else None,
            "doubly_stochastic": means.doubly_stochastic,
            **{name: scores.get(name) for name in SCORES},
            "train_seconds": round(self._progress["seconds"], 1),
            "val_seconds": round(time.monotonic() - trained, 1),
        }
        journal.epoch(line, captioner)
        learnt = f"reward {means.reward}" if is_rewarded else f"loss {means.cross_entropy}"
        found = f", CIDEr {line['cider']}, BLEU-4 {line['bleu_4']}" if is_validated else ""
        tqdm.write(f"epoch {epoch}: {learnt}{found}", file=sys.stderr)
        # Exactly uniform maps are no failure to learn: nothing was to be learnt.
        attention = scores.get("attention")
        if attention and is_constant(attention) and attention["uniform_distance"] > 0:
            tqdm.write(CONSTANT_MAPS, file=sys.stderr)

    def _train_epoch(self, phase: Phase) -> None:
        epoch, done = self._progress["epoch"], self._progress["steps"]
        sampler = self._sampler(epoch=epoch, skip=done)
        draws = sampler.part_of(distributed.rank(), distributed.processes())
        loader = batches(self._dataset(phase), draws, workers=self._options.workers)
        with tqdm(
            sampler,
            desc=f"epoch {epoch + 1}/{self._recipe.epochs}",
            unit="step",
            initial=done,
            total=len(sampler) + done,
            disable=not distributed.is_first(),
        ) as bar:
            clock = time.monotonic()
            for step in bar:
                parts = list(islice(loader, self._options.accumulate))
                with uninterrupted():
                    report = self._step(parts, step, phase)
                    clock, before = time.monotonic(), clock
                    self._progress["seconds"] += clock - before
                bar.set_postfix(_shown(phase, report), refresh=False)
                if clock - self._saved > 60 * self._options.save_minutes:
                    self._save_state()

    def _step(self, parts: list[Batch], draws: list[Draw], phase: Phase) -> Report:
        """One step, counted and noted.

        Raises:
            DivergedError: a number is not finite; the message names the photos of the step.
        """
        try:
            report = self._trainer.train_on(parts)
        except DivergedError as error:
            names = [self._train[draw.photo].path.name for draw in draws]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise DivergedError(f"{error} Its photos: {', '.join(names[:NAMED])}{more}.") from None
        except torch.OutOfMemoryError:
            raise TrainingError(
                "The memory of the device is too small; --resume with a larger --accumulate goes on, or take "
                "a smaller --batch-size in another run."
            ) from None
        self._progress["sums"] = [a + b for a, b in zip(self._progress["sums"], report, strict=True)]
        self._progress["steps"] += 1
        if self._journal:
            self._journal.step(self._trainer.step, phase, report, self._trainer.learning_rates)
        return report

    def _dataset(self, phase: Phase) -> Dataset[Example]:
        # Rewards are soon learnt by heart: they need photos that differ from epoch to epoch.
        if self._options.features is None or phase is not Phase.FROZEN:
            return PhotoDataset(self._train, self._vocabulary, self._config)
        encoder = self._trainer.network.encoder
        with self._trainer.autocast():
            if distributed.is_first():
                cached_features(self._options.features, encoder, self._config, self._train)
            distributed.wait()
            features = cached_features(self._options.features, encoder, self._config, self._train)
        return FeatureDataset(self._train, self._vocabulary, features)

    def _captioner(self) -> Captioner:
        """The averaged network as it would be used now."""
        info = CheckpointInfo(
            name=self._options.name, licence=self._options.licence, trained_on=self._options.trained_on
        )
        return Captioner(self._trainer.averaged, self._config, self._vocabulary, info)

    def _validate(self, captioner: Captioner) -> dict[str, Any]:
        """Score it on val, and keep it as last and, if it is, as best."""
        scores = evaluate_captioner(captioner, self._val, DecodingOptions())
        parts = (captioner.network, captioner.config, captioner.vocabulary, captioner.info)
        scores["checkpoint_sha256"] = save_checkpoint(self._folder.last, *parts)
        if scores["cider"] > self._progress["best"]:
            save_checkpoint(self._folder.path, *parts)
            self._progress["best"] = scores["cider"]
        return scores

    def _save_state(self) -> None:
        if distributed.is_first():
            self._trainer.save(self._folder.state, self._progress)
        self._saved = time.monotonic()


_NOTHING_OF_EPOCH: dict[str, Any] = {"steps": 0, "sums": [0.0] * len(Report._fields), "seconds": 0.0}


def _shown(phase: Phase, report: Report) -> dict[str, str]:
    """What the progress bar shows."""
    if phase is Phase.SELF_CRITICAL:
        return {"reward": f"{report.reward:.3f}"}
    return {"loss": f"{report.cross_entropy:.3f}"}
