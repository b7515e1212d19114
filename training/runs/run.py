"""A training run: its data, its trainer, and what it writes after every epoch."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from model import Captioner, CheckpointInfo, DecodingOptions, OptionsError
from model.checkpoint import save_checkpoint
from model.files import sha256_repr
from training.data.batches import (
    MAX_CAPTION_WORDS,
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
from training.engine.config import EARLIER_RUNS, RunOptions, TrainConfig
from training.engine.objective import Phase
from training.engine.trainer import StepMetrics, Trainer, interrupts_deferred
from training.errors import DataError, DivergedError, TrainingError
from training.evaluation.attention_stats import is_constant
from training.evaluation.evaluator import Evaluation
from training.reporting.epoch_log import truncate_log
from training.reporting.reporter import Reporter
from training.runs.initialization import Initialization
from training.runs.run_directory import RunDirectory

CONSTANT_ATTENTION = (
    "warning: the attention barely changes between words. This may pass after the first epochs; if not, try "
    "another --attention, a lower --doubly-stochastic or another --learning-rate."
)
# Fields of the log that are null in an epoch without validation.
SCORES = (
    *("checkpoint_sha256", "beam_size", "length_penalty", "phrase_weight", "max_length"),
    *("cider", "bleu_4", "distinct_captions", "mean_length", "faults", "attention"),
)
MAX_NAMED = 8  # photos of a step that diverged

_EPOCH_START: dict[str, Any] = {"steps": 0, "sums": [0.0] * len(StepMetrics._fields), "seconds": 0.0}


class Run:
    """One training run."""

    def __init__(
        self,
        options: RunOptions,
        recipe: TrainConfig,
        initialization: Initialization,
        photos: Sequence[CaptionedPhoto],
    ) -> None:
        """Prepare a run on ``photos`` of all splits, without problems; nothing is written yet.

        Raises:
            DataError, OptionsError: the photos or an option cannot be used.
        """
        self._recipe = recipe
        self._directory = RunDirectory(options.output)
        self._train = [photo for photo in photos if photo.split in ("train", "restval")]
        self._val = [photo for photo in photos if photo.split == "val"]
        if not self._train or not self._val:
            raise DataError(
                f"{', '.join(map(str, options.captions))}: {len(self._train)} captioned photos in train and "
                f"{len(self._val)} in val; a run needs photos of both splits."
            )
        self._parts = distributed.world_size() * options.accumulate  # batches a step is split into
        if min(recipe.batch_size, len(self._train)) < self._parts:
            raise OptionsError(
                f"{distributed.world_size()} processes x --accumulate {options.accumulate} split a step into "
                f"{self._parts} batches; --batch-size and the training photos must be at least as many."
            )
        # A run that an earlier version started has no such fields, and goes on as it began.
        if options.resume:
            begun = EARLIER_RUNS | self._directory.read_origin()
            options = replace(options, **{name: begun[name] for name in EARLIER_RUNS})
        self._options = options
        texts = [words for photo in self._train for words in photo.captions]
        network, self._config, self._vocabulary = initialization.build(
            texts, recipe.seed, without_endings=options.without_endings
        )
        self._trainer = Trainer(
            network.to(options.device),
            recipe,
            steps_per_epoch=len(self._sampler(epoch=0)),
            precision=options.precision,
            reward=CiderReward(self._references()) if recipe.self_critical_epochs else None,
            max_length=max(MAX_CAPTION_WORDS, self._config.caption_length),
        )
        is_main = distributed.is_main_process()
        self._reporter = Reporter(options.output, self._val, recipe.seed) if is_main else None
        self._progress: dict[str, Any] = {"epoch": 0, "best": -math.inf, **_EPOCH_START}
        self._saved = time.monotonic()

    def _references(self) -> Iterator[list[list[int]]]:
        for photo in self._train:
            yield encode_captions(
                photo,
                self._vocabulary,
                is_mirrored=False,
                end_after_truncation=self._options.end_after_truncation,
            )

    def _sampler(self, *, epoch: int, skip: int = 0) -> EpochSampler:
        size, seed = self._recipe.batch_size, self._recipe.seed
        return EpochSampler(len(self._train), size, seed=seed, epoch=epoch, skip=skip, parts=self._parts)

    def _origin(self) -> dict[str, Any]:
        """What must stay the same in a resumed run, as its weights and its place in the data depend on it."""
        texts = [photo.captions for photo in self._train]
        val = [(photo.path.name, photo.captions) for photo in self._val]
        return {
            **json.loads(json.dumps(self._config.as_record())),  # as it will be read back
            "batch_size": self._recipe.batch_size,
            "seed": self._recipe.seed,
            "photographs": len(self._train),
            "steps_per_epoch": len(self._sampler(epoch=0)),  # depends on the number of processes
            **{name: getattr(self._options, name) for name in EARLIER_RUNS},
            "captions_sha256": sha256_repr((texts, self._vocabulary.words)),
            "val_sha256": sha256_repr(val),
        }

    def start(self) -> None:
        """Train to the last epoch; Ctrl-C saves the state first.

        Raises:
            TrainingError: there is a run already, or none to resume, or it had other data or options.
            DivergedError: the loss is not finite.
        """
        if self._options.resume:
            self._directory.check_origin(self._origin())
            self._progress = self._trainer.restore(self._directory.state)
            if distributed.is_main_process():
                truncate_log(self._directory.path, self._progress["epoch"])
        elif distributed.is_main_process():
            self._directory.begin(self._origin())
        if self._reporter:
            self._reporter.open(step=self._trainer.step, epoch=self._progress["epoch"])
        try:
            while self._progress["epoch"] < self._recipe.epochs:
                self._run_epoch()
        except KeyboardInterrupt:
            self._save_state()
            raise
        finally:
            if self._reporter:
                self._reporter.close()

    def _run_epoch(self) -> None:
        phase = self._trainer.begin_epoch(self._progress["epoch"])
        self._train_epoch(phase)
        epoch = self._progress["epoch"] + 1
        if self._reporter:
            self._finish_epoch(epoch, phase, self._reporter)
        distributed.barrier()
        self._progress |= {"epoch": epoch, **_EPOCH_START}
        self._save_state()

    def _finish_epoch(self, epoch: int, phase: Phase, reporter: Reporter) -> None:
        trained = time.monotonic()
        is_validated = epoch % self._options.validate_every == 0 or epoch == self._recipe.epochs
        captioner = self._captioner()
        scores = self._validate(captioner) if is_validated else {}
        means = StepMetrics(*(round(total / self._progress["steps"], 4) for total in self._progress["sums"]))
        is_self_critical = phase is Phase.SELF_CRITICAL
        line = {
            "epoch": epoch,
            "phase": phase,
            "cross_entropy": None if is_self_critical else means.cross_entropy,
            "reward": means.reward if is_self_critical else None,
            "doubly_stochastic": means.doubly_stochastic,
            **{name: scores.get(name) for name in SCORES},
            "train_seconds": round(self._progress["seconds"], 1),
            "val_seconds": round(time.monotonic() - trained, 1),
        }
        reporter.epoch(line, captioner)
        found = f", CIDEr {line['cider']}, BLEU-4 {line['bleu_4']}" if is_validated else ""
        tqdm.write(f"epoch {epoch}: {_objective(phase, means)}{found}", file=sys.stderr)
        # Exactly uniform maps are by design: there is nothing to learn.
        attention = scores.get("attention")
        if attention and is_constant(attention) and attention["uniform_distance"] > 0:
            tqdm.write(CONSTANT_ATTENTION, file=sys.stderr)

    def _train_epoch(self, phase: Phase) -> None:
        epoch, done = self._progress["epoch"], self._progress["steps"]
        sampler = self._sampler(epoch=epoch, skip=done)
        draws = sampler.part_of(distributed.rank(), distributed.world_size())
        loader = batches(self._dataset(phase), draws, workers=self._options.workers)
        with tqdm(
            sampler,
            desc=f"epoch {epoch + 1}/{self._recipe.epochs}",
            unit="step",
            initial=done,
            total=len(sampler) + done,
            disable=not distributed.is_main_process(),
        ) as bar:
            clock = time.monotonic()
            for step in bar:
                parts = list(islice(loader, self._options.accumulate))
                with interrupts_deferred():
                    metrics = self._step(parts, step, phase)
                    clock, before = time.monotonic(), clock
                    self._progress["seconds"] += clock - before
                bar.set_postfix_str(_objective(phase, metrics), refresh=False)
                if clock - self._saved > 60 * self._options.save_minutes:
                    self._save_state()

    def _step(self, parts: list[Batch], draws: list[Draw], phase: Phase) -> StepMetrics:
        """Take a step and record it.

        Raises:
            DivergedError: the loss is not finite; the message names the photos of the step.
            TrainingError: the device is out of memory.
        """
        try:
            metrics = self._trainer.train_step(parts)
        except DivergedError as error:
            names = [self._train[draw.photo].path.name for draw in draws]
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            raise DivergedError(
                f"{error} Photos of the step: {', '.join(names[:MAX_NAMED])}{more}."
            ) from None
        except torch.OutOfMemoryError:
            raise TrainingError(
                "The device is out of memory; resume with a larger --accumulate, or start another run with a "
                "smaller --batch-size."
            ) from None
        self._progress["sums"] = [a + b for a, b in zip(self._progress["sums"], metrics, strict=True)]
        self._progress["steps"] += 1
        if self._reporter:
            self._reporter.step(self._trainer.step, phase, metrics, self._trainer.learning_rates)
        return metrics

    def _dataset(self, phase: Phase) -> Dataset[Example]:
        # Not in the self-critical phase, which overfits without augmentation.
        if self._options.features is None or phase is not Phase.FROZEN:
            return PhotoDataset(
                self._train,
                self._vocabulary,
                self._config,
                end_after_truncation=self._options.end_after_truncation,
            )
        encoder = self._trainer.network.encoder
        with self._trainer.autocast():
            if distributed.is_main_process():
                cached_features(self._options.features, encoder, self._config, self._train)
            distributed.barrier()
            features = cached_features(self._options.features, encoder, self._config, self._train)
        return FeatureDataset(
            self._train, self._vocabulary, features, end_after_truncation=self._options.end_after_truncation
        )

    def _captioner(self) -> Captioner:
        options = self._options
        info = CheckpointInfo(name=options.name, licence=options.licence, trained_on=options.trained_on)
        return Captioner(self._trainer.ema_network, self._config, self._vocabulary, info)

    def _validate(self, captioner: Captioner) -> dict[str, Any]:
        """Score the captioner on val; save it as the last and, if so, as the best checkpoint."""
        scores = Evaluation.of(captioner, self._val, DecodingOptions()).scores()
        checkpoint = (captioner.network, captioner.config, captioner.vocabulary, captioner.info)
        scores["checkpoint_sha256"] = save_checkpoint(self._directory.last, *checkpoint)
        if scores["cider"] > self._progress["best"]:
            save_checkpoint(self._directory.path, *checkpoint)
            self._progress["best"] = scores["cider"]
        return scores

    def _save_state(self) -> None:
        if distributed.is_main_process():
            self._trainer.save(self._directory.state, self._progress)
        self._saved = time.monotonic()


def _objective(phase: Phase, metrics: StepMetrics) -> str:
    if phase is Phase.SELF_CRITICAL:
        return f"reward {metrics.reward:.4f}"
    return f"loss {metrics.cross_entropy:.4f}"
