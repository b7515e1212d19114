"""An experiment: trains kinds of attention with the same recipe, scores them, and writes the table."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from model import Captioner, DecodingOptions, ModelConfig, NonFiniteError, OptionsError
from model.checkpoint import MANIFEST
from model.decoder import Decoder
from model.files import locked, sha256_file, sha256_repr, write_whole
from training.comparison.results import RESULT, RUNS, earlier_options, keep_settings, read_results
from training.comparison.table import COMPARISON, as_markdown, compare
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos, pair_sources
from training.data.instances import Instances, read_instances
from training.engine.config import RunOptions, TrainConfig
from training.errors import DataError, DivergedError, TrainingError
from training.evaluation.attention_stats import describe_attention
from training.evaluation.evaluator import caption_photos
from training.evaluation.grounding import ground
from training.reporting.epoch_log import read_log
from training.runs.initialization import Initialization
from training.runs.run import Run
from training.runs.run_directory import STATE, check_output

FEATURES = "features.npy"
SPEED_PHOTOS = 64  # captioned to measure the speed
SPEED_ROUNDS = 3  # the fastest round counts, as other work on the machine can only slow one down


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """What is compared, and how."""

    run: RunOptions  # of every run; its output is the folder of the experiment
    recipe: TrainConfig  # of every run; the encoder is frozen and seeds are set throughout
    network: dict[str, Any]  # fields of ``ModelConfig`` except the attention
    kinds: Sequence[str]  # of attention
    seeds: Sequence[int]  # of each kind
    split: str  # scored
    decoding: DecodingOptions
    instances: Path | None = None  # COCO instances JSON, for grounding
    instance_images: Path | None = None  # the folder of its photos; None: images/ beside it
    instance_captions: Path | None = None  # their reference captions


class Experiment:
    """A folder with a run for every kind and seed, and their results."""

    def __init__(self, options: ExperimentOptions) -> None:
        """Check everything that does not need the photos.

        Raises:
            CaptioningError: an option, the output folder or the instances cannot be used, or a kind of
                attention does not allow these sizes.
        """
        self._options = options
        self._folder = options.run.output
        check_output(self._folder)
        self._sources = pair_sources(options.run.captions, options.run.images)
        self._recipe = replace(options.recipe, frozen_epochs=options.recipe.epochs)
        for seed in options.seeds:
            replace(self._recipe, seed=seed)
        for kind in options.kinds:
            config = ModelConfig(vocabulary_size=1, attention=kind, **options.network)
            Decoder(ModelConfig.from_record(config.as_record()), rows=1, columns=1)
        self._initialization(options.kinds[0], options.seeds[0])
        self._instances: Instances | None = None
        if options.instances:
            images = options.instance_images or options.instances.parent / "images"
            self._instances = read_instances(options.instances, images, options.instance_captions)
        elif options.instance_images or options.instance_captions:
            raise OptionsError("--instance-images and --instance-captions need --instances.")
        self._listed: list[CaptionedPhoto] = []
        self._photos: list[CaptionedPhoto] = []  # scored

    def start(self) -> Path:
        """Train and score what is missing, and write the table; return its path.

        Raises:
            OutputFolderError: another process is writing to the folder.
            OptionsError: the folder belongs to an experiment with other settings.
            DataError: the photos cannot be used, or files in the folder are damaged.
            TrainingError: no run succeeded, or one cannot be resumed.
        """
        run = self._options.run
        with locked(self._folder):
            self._listed = load_photos(self._sources, check="decode", skip_problems=run.skip_problems)
            self._photos = [photo for photo in self._listed if photo.split == self._options.split]
            if not self._photos:
                files = ", ".join(map(str, run.captions))
                raise DataError(f"{files}: the split {self._options.split} has no captioned photos.")
            keep_settings(self._folder, self._settings())
            read_results(
                self._folder, len(self._photos)
            )  # a damaged one should stop the experiment now, not after the last run
            for seed in self._options.seeds:
                for kind in self._options.kinds:
                    if not (self._run_folder(kind, seed) / RESULT).exists():
                        self._run(kind, seed)
            return self._write_table()

    def _run(self, kind: str, seed: int) -> None:
        folder = self._run_folder(kind, seed)
        try:
            self._train(kind, seed)
            result = self._score(kind, seed)
        except (DivergedError, NonFiniteError) as error:  # other kinds may not diverge
            print(f"{kind}, seed {seed}, failed: {error}", file=sys.stderr)
            result = {"kind": kind, "seed": seed, "failed": str(error)}
        folder.mkdir(parents=True, exist_ok=True)  # missing if it failed before it wrote anything
        write_whole(folder / RESULT, json.dumps(result, indent=1))
        (folder / STATE).unlink(missing_ok=True)  # large, and not needed again

    def _run_folder(self, kind: str, seed: int) -> Path:
        return self._folder / RUNS / f"{kind}-{seed}"

    def _settings(self) -> dict[str, Any]:
        """What all results in the table have in common."""
        options, run, captions = self._options, self._options.run, self._options.instance_captions
        trained_on = [photo for photo in self._listed if photo.split in ("train", "restval")]
        return {
            "split": options.split,
            "encoder_weights": run.encoder_weights,
            "network": options.network,
            "recipe": {name: value for name, value in asdict(self._recipe).items() if name != "seed"},
            "decoding": asdict(options.decoding),
            "precision": run.precision,
            "photographs": [photo.path.name for photo in self._photos],
            "min_count": run.min_count,
            **earlier_options(self._folder),
            "training_captions_sha256": _captions_sha256(trained_on),
            "captions_sha256": _captions_sha256(self._photos),
            "instances_sha256": sha256_file(options.instances) if options.instances else None,
            "instance_captions_sha256": sha256_file(captions) if captions else None,
        }

    def _train(self, kind: str, seed: int) -> None:
        folder = self._run_folder(kind, seed)
        if folder.exists() and not (folder / STATE).exists():
            if self._is_trained(folder):
                return
            shutil.rmtree(folder)  # killed before its first save
        print(f"{kind}, seed {seed}", file=sys.stderr)
        recipe = replace(self._recipe, seed=seed)
        Run(self._run_options(kind, seed), recipe, self._initialization(kind, seed), self._listed).start()

    def _initialization(self, kind: str, seed: int) -> Initialization:
        return Initialization(self._run_options(kind, seed), {**self._options.network, "attention": kind})

    def _is_trained(self, folder: Path) -> bool:
        """Whether the last epoch was validated, so that only the result is missing."""
        log = read_log(folder)
        is_done = bool(log) and log[-1]["epoch"] == self._recipe.epochs and log[-1]["cider"] is not None
        return is_done and (folder / MANIFEST).exists()

    def _run_options(self, kind: str, seed: int) -> RunOptions:
        folder = self._run_folder(kind, seed)
        return replace(
            self._options.run,
            output=folder,
            resume=(folder / STATE).exists(),
            features=self._folder / FEATURES,
            validate_every=self._recipe.epochs,
            name=f"{kind} attention, seed {seed}",
            **earlier_options(self._folder),
        )

    def _score(self, kind: str, seed: int) -> dict[str, Any]:
        folder, decoding = self._run_folder(kind, seed), self._options.decoding
        captioner = Captioner.load(folder, self._options.run.device)
        captions = caption_photos(captioner, self._photos, decoding)
        weights = captioner.network.named_parameters()
        return {
            "kind": kind,
            "seed": seed,
            "parameters": sum(value.numel() for name, value in weights if not name.startswith("encoder.")),
            "train_seconds": round(sum(line["train_seconds"] for line in read_log(folder)), 1),
            "attention": describe_attention(captions),
            "grounding": ground(captioner, self._instances, decoding) if self._instances else None,
            "captions": [caption.text for caption in captions],
        }

    def _write_table(self) -> Path:
        """Write the table of all results in the folder, including those of earlier commands."""
        results = read_results(self._folder, len(self._photos))
        failed = [result for result in results if "failed" in result]
        results = [result for result in results if "failed" not in result]
        speeds = self._speeds({result["kind"]: result["seed"] for result in reversed(results)})
        results = [result | {"captions_per_second": speeds[result["kind"]]} for result in results]
        settings = {name: value for name, value in self._settings().items() if name != "photographs"}
        comparison = {
            "settings": {**settings, "images": len(self._photos)},
            "kinds": compare(results, self._photos),
            "failed": failed,
        }
        write_whole(self._folder / f"{COMPARISON}.json", json.dumps(comparison, indent=1))
        path = self._folder / f"{COMPARISON}.md"
        write_whole(path, as_markdown(comparison))
        if not results:
            raise TrainingError(f"No kind could be trained: {failed[0]['failed']}")
        return path

    def _speeds(self, seeds: dict[str, int]) -> dict[str, float]:
        """Captions a second of one captioner of each kind, measured in turns."""
        images = [photo.read() for photo in self._photos[:SPEED_PHOTOS]]
        captioners = {
            kind: Captioner.load(self._run_folder(kind, seed), self._options.run.device)
            for kind, seed in sorted(seeds.items())
        }
        fastest = dict.fromkeys(captioners, 0.0)
        for _ in range(SPEED_ROUNDS):
            for kind, captioner in captioners.items():
                started = time.perf_counter()
                captioner.caption(images, self._options.decoding)
                fastest[kind] = max(fastest[kind], len(images) / (time.perf_counter() - started))
        return fastest


def _captions_sha256(photos: Sequence[CaptionedPhoto]) -> str:
    return sha256_repr([(photo.path.name, photo.captions) for photo in photos])
