"""Train kinds of attention alike, and compare what they say and where they look.

    python -m training.compare --captions captions.json --images photos/ --output runs/compare \\
        --encoder resnet50 --kinds none uniform additive --epochs 3

trains every kind (all by default) with the same encoder, widths, seed, batches and schedule on the cached
features of a frozen encoder, scores it, and writes comparison.md, a table, and comparison.json. What is
finished is kept: the same command goes on where it was stopped, and more kinds or seeds may be added later.
With --instances, a COCO annotation file, and --instance-images it also measures where the maps lie. A kind
whose training diverges has a row that says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from model import Captioner, CaptioningError, DecodingOptions, ModelConfig, NonFiniteError, OptionsError
from model.attention import ATTENTION_KINDS
from model.captioner import check_device
from model.checkpoint import MANIFEST
from model.decoder import Decoder
from model.files import write_whole
from training.cli import (
    add_data_options,
    add_hardware_options,
    add_network_options,
    add_recipe_options,
    chosen_network,
    chosen_recipe,
    network_fields,
)
from training.comparison.results import RESULT, RUNS, keep_settings, locked, read_results, sha256_of_file
from training.comparison.table import COMPARISON, as_markdown, compare
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos, pair_sources
from training.data.instances import Instances, read_instances
from training.engine.config import RunOptions
from training.errors import DataError, DivergedError, TrainingError
from training.evaluation.evaluator import caption_photos, describe_attention
from training.evaluation.grounding import ground
from training.runs.run import Run
from training.runs.run_directory import STATE, read_log

FEATURES = "features.npy"
DEFAULTS = {"epochs": 3}
SELF_CRITICAL = ("self_critical_epochs", "self_critical_learning_rate", "samples")  # not every kind can be
SPEED_PHOTOS = 64  # captioned for a figure of speed
SPEED_ROUNDS = 3  # of which each captioner's fastest counts: other work can only slow one down


class Comparison:
    """The folder of a comparison: a run for every kind and seed, and what came of it."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        """Read the data, and refuse now what would fail after hours.

        Raises:
            DataError, OptionsError, CheckpointError: the data or an option cannot be used, or a kind cannot
                have these widths.
        """
        check_device(chosen.device)
        self._chosen = chosen
        recipe = chosen_recipe(chosen, **DEFAULTS)
        self._recipe = replace(recipe, frozen_epochs=recipe.epochs)
        defaults: dict[str, Any] = {
            field.name: field.default for field in network_fields() if field.name != "attention"
        }
        self._network = defaults | chosen_network(chosen)
        self._folder: Path = chosen.output
        self._min_count = RunOptions.min_count if chosen.min_count is None else chosen.min_count
        self._instances: Instances | None = None
        if chosen.instances:
            images = chosen.instance_images or chosen.instances.parent / "images"
            self._instances = read_instances(chosen.instances, images, chosen.instance_captions)
        elif chosen.instance_images or chosen.instance_captions:
            raise OptionsError("--instance-images and --instance-captions need --instances.")
        for kind in chosen.kinds:
            config = ModelConfig(vocabulary_size=1, attention=kind, **self._network)
            Decoder(ModelConfig.from_record(config.as_record()), rows=1, columns=1)
        for seed in chosen.seeds:
            replace(self._recipe, seed=seed)
            self._run_options(chosen.kinds[0], seed)
        # Last, for it may take a minute.
        sources = pair_sources(chosen.captions, chosen.images)
        self._listed = load_photos(sources, check="decode", skip_problems=chosen.skip_problems)
        self._train_photos = [one for one in self._listed if one.split in ("train", "restval")]
        self._photos = [one for one in self._listed if one.split == chosen.split]
        if not self._photos:
            files = ", ".join(map(str, chosen.captions))
            raise DataError(f"{files}: there are no photos of the split {chosen.split!r}.")

    def start(self) -> Path:
        """Train and score what is missing, and write the table; its path.

        Raises:
            OptionsError: the folder holds another comparison, or another process is working on it.
            DataError: what an earlier command left is damaged.
            TrainingError: no run in the folder succeeded, or one cannot be gone on with.
        """
        with locked(self._folder):
            keep_settings(self._folder, self._settings())
            self._results()  # better told that one is damaged now than after the last run
            for seed in self._chosen.seeds:
                for kind in self._chosen.kinds:
                    if not (self._run_folder(kind, seed) / RESULT).exists():
                        self._run(kind, seed)
            return self._write_table()

    def _run(self, kind: str, seed: int) -> None:
        folder = self._run_folder(kind, seed)
        try:
            self._train(kind, seed)
            result = self._score(kind, seed)
        except (DivergedError, NonFiniteError) as error:  # the others may not
            print(f"{kind}, seed {seed}, failed: {error}", file=sys.stderr)
            result = {"kind": kind, "seed": seed, "failed": str(error)}
        folder.mkdir(parents=True, exist_ok=True)  # it may have failed before it wrote anything
        write_whole(folder / RESULT, json.dumps(result, indent=1))
        (folder / STATE).unlink(missing_ok=True)  # large, and not needed again

    def _results(self) -> list[dict[str, Any]]:
        return read_results(self._folder, len(self._photos))

    def _run_folder(self, kind: str, seed: int) -> Path:
        return self._folder / RUNS / f"{kind}-{seed}"

    def _settings(self) -> dict[str, Any]:
        """What all results of one table have in common."""
        return {
            "split": self._chosen.split,
            "encoder_weights": str(self._chosen.encoder_weights),
            "network": self._network,
            "recipe": {name: value for name, value in asdict(self._recipe).items() if name != "seed"},
            "precision": self._chosen.precision,
            "photographs": [photo.path.name for photo in self._photos],
            "min_count": self._min_count,
            "training_captions_sha256": _sha256(self._train_photos),
            "captions_sha256": _sha256(self._photos),
            "instances_sha256": sha256_of_file(self._chosen.instances),
            "instance_captions_sha256": sha256_of_file(self._chosen.instance_captions),
        }

    def _train(self, kind: str, seed: int) -> None:
        folder = self._run_folder(kind, seed)
        if folder.exists() and not (folder / STATE).exists():
            if self._is_trained(folder):
                return
            shutil.rmtree(folder)  # killed before it had saved anything to go on from
        print(f"{kind}, seed {seed}", file=sys.stderr)
        network = {**self._network, "attention": kind}
        options = self._run_options(kind, seed)
        Run(options, replace(self._recipe, seed=seed), network, self._listed).start()

    def _is_trained(self, folder: Path) -> bool:
        """Whether the last epoch was validated, and so everything but the result was written."""
        log = read_log(folder)
        is_over = bool(log) and log[-1]["epoch"] == self._recipe.epochs and log[-1]["cider"] is not None
        return is_over and (folder / MANIFEST).exists()

    def _run_options(self, kind: str, seed: int) -> RunOptions:
        folder = self._run_folder(kind, seed)
        return RunOptions(
            captions=tuple(self._chosen.captions),
            images=tuple(self._chosen.images),
            skip_problems=self._chosen.skip_problems,
            output=folder,
            resume=(folder / STATE).exists(),
            min_count=self._min_count,
            encoder_weights=self._chosen.encoder_weights,
            features=self._folder / FEATURES,
            precision=self._chosen.precision,
            device=self._chosen.device,
            workers=self._chosen.workers,
            validate_every=self._recipe.epochs,
            name=f"{kind} attention, seed {seed}",
        )

    def _score(self, kind: str, seed: int) -> dict[str, Any]:
        folder = self._run_folder(kind, seed)
        captioner = Captioner.load(folder, self._chosen.device)
        captions = caption_photos(captioner, self._photos, DecodingOptions())
        decoder = [
            value for name, value in captioner.network.named_parameters() if not name.startswith("encoder.")
        ]
        return {
            "kind": kind,
            "seed": seed,
            "parameters": sum(value.numel() for value in decoder),
            "train_seconds": round(sum(line["train_seconds"] for line in read_log(folder)), 1),
            "attention": describe_attention(captions),
            "grounding": ground(captioner, self._instances, DecodingOptions()) if self._instances else None,
            "captions": [caption.text for caption in captions],
        }

    def _write_table(self) -> Path:
        """The table of everything finished in the folder, also by earlier commands."""
        everything = self._results()
        failed = [result for result in everything if "failed" in result]
        results = [result for result in everything if "failed" not in result]
        speeds = self._speeds({result["kind"]: result["seed"] for result in reversed(results)})
        for result in results:
            result["captions_per_second"] = speeds[result["kind"]]
        table = compare(results, self._photos)
        settings = {name: value for name, value in self._settings().items() if name != "photographs"}
        whole = {"settings": {**settings, "images": len(self._photos)}, "kinds": table}
        whole["failed"] = failed
        write_whole(self._folder / f"{COMPARISON}.json", json.dumps(whole, indent=1))
        path = self._folder / f"{COMPARISON}.md"
        write_whole(path, as_markdown(whole))
        if not results:
            raise TrainingError(f"No kind could be trained: {failed[0]['failed']}")
        return path

    def _speeds(self, seeds: dict[str, int]) -> dict[str, float]:
        """Captions a second of a captioner of every kind, in turns so that all meet the same machine."""
        images = [photo.read() for photo in self._photos[:SPEED_PHOTOS]]
        captioners = {
            kind: Captioner.load(self._run_folder(kind, seed), self._chosen.device)
            for kind, seed in sorted(seeds.items())
        }
        fastest = dict.fromkeys(captioners, 0.0)
        for _ in range(SPEED_ROUNDS):
            for kind, captioner in captioners.items():
                started = time.perf_counter()
                captioner.caption(images)
                speed = len(images) / (time.perf_counter() - started)
                fastest[kind] = max(fastest[kind], speed)
        return fastest


def _sha256(photos: Sequence[CaptionedPhoto]) -> str:
    """Changes with the photos' names, their order and their captions."""
    shown = [(photo.path.name, photo.captions) for photo in photos]
    return sha256(repr(shown).encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        print(Comparison(chosen).start())
    except KeyboardInterrupt:
        print("\ncompare: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_options(parser)
    add = parser.add_argument_group("comparison").add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write, or to go on with")
    add(
        "--kinds",
        nargs="+",
        choices=ATTENTION_KINDS,
        default=list(ATTENTION_KINDS),
        metavar="KIND",
        help=f"of {', '.join(ATTENTION_KINDS)}; default all",
    )
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="runs of each kind, default 0")
    add("--split", choices=("val", "test"), default="val", help="what to score on, default val")
    add("--instances", type=Path, metavar="FILE", help="COCO instances JSON, to measure grounding on")
    add("--instance-images", type=Path, metavar="DIR", help="its photos, default images/ beside it")
    add("--instance-captions", type=Path, metavar="FILE", help="their captions, in any form of --captions")
    add_network_options(parser, without=("attention",))
    add_recipe_options(
        parser, without=("frozen_epochs", "encoder_learning_rate", "seed", *SELF_CRITICAL), **DEFAULTS
    )
    add_hardware_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
