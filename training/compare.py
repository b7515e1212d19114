"""Train kinds of attention alike, and compare what they say and where they look.

    python -m training.compare --captions captions.json --images photos/ --output runs/compare \\
        --encoder resnet50 --kinds none uniform additive --epochs 3

trains every kind (all by default) with the same encoder, widths, seed, batches and schedule on the cached
features of a frozen encoder, scores it, and writes comparison.md, a table, and comparison.json. What is
finished is kept: the same command goes on where it was stopped, and more kinds or seeds may be added later.
With --instances, a COCO annotation file, and --instance-images it also measures where the maps lie.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from model import Captioner, CaptioningError, DecodingOptions, ModelConfig, OptionsError
from model.attention import ATTENTION_KINDS
from model.decoder import Decoder
from training.comparison import COMPARISON, as_markdown, compare
from training.config import RunOptions
from training.data import DataError, read_photographs
from training.evaluate import caption_photographs, describe_attention
from training.grounding import ground
from training.instances import Instances, read_instances
from training.options import (
    add_data_options,
    add_hardware_options,
    add_network_options,
    add_recipe_options,
    chosen_network,
    chosen_recipe,
)
from training.run import LOG, STATE, Run

RESULT, SETTINGS, FEATURES = "result.json", "settings.json", "features.npy"
SPEED_PHOTOGRAPHS = 64  # captioned for a figure of speed
SPEED_ROUNDS = 3  # of which each captioner's fastest counts: other work can only slow one down


class Comparison:
    """The folder of a comparison: a run for every kind and seed, and what came of it."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        """Read the data and take up what an earlier command left.

        Raises:
            DataError, OptionsError, CheckpointError: the data or an option cannot be used, a kind cannot have
                these widths, or the folder holds another comparison.
        """
        self._chosen = chosen
        self._recipe = replace(chosen_recipe(chosen), frozen_epochs=chosen.epochs)
        self._network = chosen_network(chosen)
        self._folder: Path = chosen.output
        self._photographs = read_photographs(chosen.captions, chosen.images, (chosen.split,))
        if not self._photographs:
            raise DataError(f"{chosen.captions} lists no photographs of the split {chosen.split!r}.")
        self._instances: Instances | None = None
        if chosen.instances:
            images = chosen.instance_images or chosen.instances.parent / "images"
            self._instances = read_instances(chosen.instances, images, chosen.instance_captions)
        for kind in chosen.kinds:  # better now than after hours with the kinds before it
            Decoder(ModelConfig(vocabulary_size=1, attention=kind, **self._network), rows=1, columns=1)
        self._keep_settings()

    def start(self) -> Path:
        """Train and score what is missing, and write the table; its path."""
        for seed in self._chosen.seeds:
            for kind in self._chosen.kinds:
                if not (self._run_folder(kind, seed) / RESULT).exists():
                    self._train(kind, seed)
                    self._score(kind, seed)
        return self._write_table()

    def _run_folder(self, kind: str, seed: int) -> Path:
        return self._folder / "runs" / f"{kind}-{seed}"

    def _settings(self) -> dict[str, Any]:
        """What all results of one table have in common."""
        return {
            "split": self._chosen.split,
            "encoder_weights": str(self._chosen.encoder_weights),
            "network": self._network,
            "recipe": {name: value for name, value in asdict(self._recipe).items() if name != "seed"},
            "precision": self._chosen.precision,
            "photographs": [photograph.path.name for photograph in self._photographs],
            "is_grounded": self._instances is not None,
        }

    def _keep_settings(self) -> None:
        path = self._folder / SETTINGS
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name, value in self._settings().items() if before.get(name) != value]
            if changed:
                raise OptionsError(
                    f"The comparison in {self._folder} had another {', '.join(changed)}; "
                    "go on with what it had, or choose another --output."
                )
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(self._settings(), indent=1))

    def _train(self, kind: str, seed: int) -> None:
        print(f"{kind}, seed {seed}", file=sys.stderr)
        folder = self._run_folder(kind, seed)
        options = RunOptions(
            captions=self._chosen.captions,
            images=self._chosen.images,
            output=folder,
            resume=(folder / STATE).exists(),
            min_count=self._chosen.min_count,
            encoder_weights=self._chosen.encoder_weights,
            features=self._folder / FEATURES,
            precision=self._chosen.precision,
            device=self._chosen.device,
            workers=self._chosen.workers,
            validate_every=self._recipe.epochs,
            name=f"{kind} attention, seed {seed}",
        )
        Run(options, replace(self._recipe, seed=seed), {**self._network, "attention": kind}).start()

    def _score(self, kind: str, seed: int) -> None:
        folder = self._run_folder(kind, seed)
        captioner = Captioner.load(folder, self._chosen.device)
        captions = caption_photographs(captioner, self._photographs, DecodingOptions())
        decoder = [
            value for name, value in captioner.network.named_parameters() if not name.startswith("encoder.")
        ]
        log = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
        result = {
            "kind": kind,
            "seed": seed,
            "parameters": sum(value.numel() for value in decoder),
            "train_seconds": round(sum(line["train_seconds"] for line in log), 1),
            "attention": describe_attention(captions),
            "grounding": ground(captioner, self._instances, DecodingOptions()) if self._instances else None,
            "captions": [caption.text for caption in captions],
        }
        _write(folder / RESULT, json.dumps(result, indent=1))
        (folder / STATE).unlink(missing_ok=True)  # large, and not needed again

    def _write_table(self) -> Path:
        """The table of everything finished in the folder, also by earlier commands."""
        results = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted((self._folder / "runs").glob(f"*/{RESULT}"))
        ]
        for kind, speed in self._speeds(sorted({result["kind"] for result in results})).items():
            for result in results:
                if result["kind"] == kind:
                    result["captions_per_second"] = speed
        table = compare(results, self._photographs)
        settings = {name: value for name, value in self._settings().items() if name != "photographs"}
        whole = {"settings": {**settings, "images": len(self._photographs)}, "kinds": table}
        _write(self._folder / f"{COMPARISON}.json", json.dumps(whole, indent=1))
        path = self._folder / f"{COMPARISON}.md"
        _write(path, as_markdown(whole))
        return path

    def _speeds(self, kinds: Sequence[str]) -> dict[str, float]:
        """Captions a second of a captioner of every kind, in turns so that all meet the same machine."""
        images = [photograph.read() for photograph in self._photographs[:SPEED_PHOTOGRAPHS]]
        captioners = {}
        for kind in kinds:
            folder = next((self._folder / "runs").glob(f"{kind}-*/{RESULT}")).parent
            captioners[kind] = Captioner.load(folder, self._chosen.device)
        fastest = dict.fromkeys(kinds, 0.0)
        for _ in range(SPEED_ROUNDS):
            for kind, captioner in captioners.items():
                started = time.perf_counter()
                captioner.caption(images)
                speed = len(images) / (time.perf_counter() - started)
                fastest[kind] = max(fastest[kind], speed)
        return fastest


def _write(path: Path, text: str) -> None:
    """All of the file or nothing of it, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    temporary.replace(path)


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
    add("--instance-images", type=Path, metavar="DIR", help="its photographs, default images/ beside it")
    add("--instance-captions", type=Path, metavar="FILE", help="their captions, Karpathy JSON")
    add_network_options(parser, without=("attention",))
    add_recipe_options(parser, without=("frozen_epochs", "encoder_learning_rate", "seed"), epochs=3)
    add_hardware_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
