"""What the results of a comparison say: one row a kind of attention, as data and as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from model.tokenizer import detokenize
from training.data.caption_files import CaptionedPhoto
from training.engine.config import network_defaults
from training.evaluation.metrics import Tally

COMPARISON = "comparison"  # the names of the files, without .json and .md
REFERENCE = "additive"  # the kind that the others are compared with
SHOWN = ("bleu_4", "cider", "rouge_l")
NOTHING = "–"


def compare(results: Sequence[dict[str, Any]], photos: Sequence[CaptionedPhoto]) -> list[dict[str, Any]]:
    """A row a kind: means over its seeds, scores with intervals, and differences from additive attention.

    Args:
        results: of ``training.compare``, one for each run that did not fail, on the same photos.
        photos: those, in the order of the captions.
    """
    references = [[detokenize(words) for words in photo.captions] for photo in photos]
    kinds = list(dict.fromkeys(result["kind"] for result in results))
    runs = {kind: [result for result in results if result["kind"] == kind] for kind in kinds}
    tallies = {
        kind: Tally.pooled([Tally.of(run["captions"], references) for run in runs[kind]]) for kind in kinds
    }
    return [
        {
            "kind": kind,
            "seeds": [run["seed"] for run in runs[kind]],
            "parameters": runs[kind][0]["parameters"],
            "train_seconds": round(fmean(run["train_seconds"] for run in runs[kind]), 1),
            "captions_per_second": round(fmean(run["captions_per_second"] for run in runs[kind]), 1),
            **tallies[kind].scores(),
            "distinct_captions": round(fmean(len(set(run["captions"])) for run in runs[kind])),
            f"above_{REFERENCE}": (
                tallies[kind].differences(tallies[REFERENCE])
                if REFERENCE in tallies and kind != REFERENCE
                else None
            ),
            "attention": _mean([run["attention"] for run in runs[kind]]),
            "grounding": _grounding([run["grounding"] for run in runs[kind]]),
        }
        for kind in kinds
    ]


def _mean(found: Sequence[dict[str, Any] | None]) -> dict[str, float | None] | None:
    """Number by number; None where there is nothing to be the mean of."""
    there = [one for one in found if one is not None]
    if not there:
        return None
    means: dict[str, float | None] = {}
    for name in there[0]:
        numbers = [one[name] for one in there if isinstance(one[name], int | float)]
        if numbers:
            means[name] = round(fmean(numbers), 4)
        elif there[0][name] is None:
            means[name] = None
    return means


def _grounding(found: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The figures of ``training.grounding``, those of chance included."""
    there = [one for one in found if one is not None]
    if not there:
        return None
    nested: dict[str, Any] = {
        name: _grounding([one[name] for one in there])
        for name in ("chance", "uniform", "centre", "reference")
        if name in there[0]
    }
    # An interval over photos is of one run; of several it would have to be resampled together.
    own = {"intervals": there[0]["intervals"]} if len(there) == 1 and "intervals" in there[0] else {}
    return {**(_mean(there) or {}), **own, **nested}


def as_markdown(comparison: dict[str, Any]) -> str:
    """A table, best CIDEr first, of what ``training.compare`` found, under a sentence on how it was made."""
    rows = sorted(comparison["kinds"], key=lambda row: -row["cider"])
    cells = [*map(_cells, rows), *map(_failed_cells, comparison["failed"])]
    lines = [_line(_HEADINGS), _line(["---"] * len(_HEADINGS)), *map(_line, cells)]
    return "\n".join([_how_it_was_made(comparison), "", *lines]) + "\n"


_HEADINGS = (
    "kind",
    "parameters, M",
    "training, min",
    "captions / s",
    "BLEU-4",
    "CIDEr",
    "ROUGE-L",
    f"CIDEr above {REFERENCE}",
    "entropy",
    "step distance",
    "from uniform",
    "pointing, generated (uniform, centre)",
    "in box",
    "pointing, reference (uniform, centre)",
    "in box",
)


_ALWAYS_SAID = (
    *("encoder", "image_size", "grid", "query"),
    *("annotation_dim", "attention_dim", "embedding_dim", "hidden_dim"),
)


def _how_it_was_made(comparison: dict[str, Any]) -> str:
    settings = comparison["settings"]
    network, recipe = settings["network"], settings["recipe"]
    seeds = {seed for row in comparison["kinds"] for seed in row["seeds"]}
    seeds |= {run["seed"] for run in comparison["failed"]}
    defaults = network_defaults(network)
    chosen = [
        f", {name.replace('_', ' ')} {value}"
        for name, value in network.items()
        if name not in _ALWAYS_SAID and value != defaults.get(name)
    ]
    return (
        f"Every kind alike: {network['encoder']} frozen at {network['image_size']} pixels, grid "
        f"'{network['grid']}', query '{network['query']}', D {network['annotation_dim']}, "
        f"A {network['attention_dim']}, E {network['embedding_dim']}, H {network['hidden_dim']}"
        f"{''.join(chosen)}; "
        f"{recipe['epochs']} epochs of batches of {recipe['batch_size']} photos, learning rate "
        f"{recipe['learning_rate']}, doubly stochastic weight {recipe['doubly_stochastic']}, "
        f"seeds {', '.join(map(str, sorted(seeds)))}. Scores x 100 on {settings['images']} photos of "
        f"{settings['split']}, beam 3, with 95 % bootstrap intervals over photos; "
        "parameters without the encoder's; captions a second measured in turns on one machine."
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any]) -> list[str]:
    above, attention, grounding = row[f"above_{REFERENCE}"], row["attention"] or {}, row["grounding"] or {}
    cider = above and _with_interval(above["cider"]["difference"], above["cider"]["interval"], sign="+")
    return [
        f"`{row['kind']}`",
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['train_seconds'] / 60:.1f}",
        f"{row['captions_per_second']:.0f}",
        *(_with_interval(row[name], row["intervals"][name]) for name in SHOWN),
        cider or NOTHING,
        *(_share(attention.get(name)) for name in ("entropy", "step_distance", "uniform_distance")),
        *_grounding_cells(grounding),
        *_grounding_cells(grounding.get("reference") or {}),
    ]


def _failed_cells(run: dict[str, Any]) -> list[str]:
    said = " ".join(str(run["failed"]).split()).replace("|", "/")
    return [f"`{run['kind']}`, seed {run['seed']}", f"failed: {said}", *[NOTHING] * (len(_HEADINGS) - 2)]


def _grounding_cells(found: dict[str, Any]) -> tuple[str, str]:
    """Pointing accuracy with that of the two maps that know nothing, and attention in the boxes."""
    if found.get("pointing_accuracy") is None:
        return NOTHING, NOTHING
    chance = [_share(found["chance"][prior]["pointing_accuracy"]) for prior in ("uniform", "centre")]
    return f"{_share(found['pointing_accuracy'])} ({', '.join(chance)})", _share(found["attention_in_box"])


def _with_interval(value: float, interval: Sequence[float], *, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{interval[0]:{sign}.1f}, {interval[1]:{sign}.1f}]"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"
