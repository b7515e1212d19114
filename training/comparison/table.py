"""The comparison of the results: one row for each kind of attention, as data and as a Markdown table."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from training.data.caption_files import CaptionedPhoto
from training.engine.config import network_defaults
from training.evaluation.evaluator import references_of
from training.evaluation.metrics import CorpusScores

COMPARISON = "comparison"  # file name, without .json and .md
REFERENCE = "additive"  # the kind that the others are compared to
SCORES_SHOWN = ("bleu_4", "cider", "rouge_l")
EMPTY = "–"


def compare(results: Sequence[dict[str, Any]], photos: Sequence[CaptionedPhoto]) -> list[dict[str, Any]]:
    """Rows of the table: means over seeds, scores with intervals, and differences from additive attention.

    Args:
        results: one for each run that did not fail, all on the same photos.
        photos: scored, in the order of the captions.
    """
    references = references_of(photos)
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        kinds[result["kind"]].append(result)
    scores = {
        kind: CorpusScores.pooled([CorpusScores.of(run["captions"], references) for run in runs])
        for kind, runs in kinds.items()
    }
    reference = scores.get(REFERENCE)
    return [
        {
            "kind": kind,
            "seeds": [run["seed"] for run in runs],
            "parameters": runs[0]["parameters"],
            "train_seconds": round(fmean(run["train_seconds"] for run in runs), 1),
            "captions_per_second": round(fmean(run["captions_per_second"] for run in runs), 1),
            **scores[kind].summary(),
            "distinct_captions": round(fmean(len(set(run["captions"])) for run in runs)),
            f"above_{REFERENCE}": (
                scores[kind].differences(reference) if reference and kind != REFERENCE else None
            ),
            "attention": _means([run["attention"] for run in runs]),
            "grounding": _means([run["grounding"] for run in runs]),
        }
        for kind, runs in kinds.items()
    ]


def _means(found: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Means over runs of all figures, nested ones too; None without any."""
    known = [figures for figures in found if figures is not None]
    if not known:
        return None
    means: dict[str, Any] = {}
    for name, first in known[0].items():
        values = [figures[name] for figures in known]
        numbers = [value for value in values if isinstance(value, int | float)]
        if name == "intervals":  # those of several runs would need joint resampling
            means |= {name: first} if len(known) == 1 else {}
        elif isinstance(first, dict):
            means[name] = _means(values)
        elif numbers or first is None:
            means[name] = round(fmean(numbers), 4) if numbers else None
    return means


def as_markdown(comparison: dict[str, Any]) -> str:
    """The table, best CIDEr first, below a sentence on the settings."""
    rows = sorted(comparison["kinds"], key=lambda row: -row["cider"])
    cells = [*map(_cells, rows), *map(_failed_cells, comparison["failed"])]
    lines = [f"| {' | '.join(row)} |" for row in (_HEADINGS, ["---"] * len(_HEADINGS), *cells)]
    return "\n".join([_settings_sentence(comparison), "", *lines]) + "\n"


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


_ALWAYS_SHOWN = (
    *("encoder", "image_size", "grid", "query"),
    *("annotation_dim", "attention_dim", "embedding_dim", "hidden_dim"),
)


def _settings_sentence(comparison: dict[str, Any]) -> str:
    settings = comparison["settings"]
    network, recipe = settings["network"], settings["recipe"]
    seeds = {seed for row in comparison["kinds"] for seed in row["seeds"]}
    seeds |= {run["seed"] for run in comparison["failed"]}
    defaults = network_defaults(network)
    chosen = [
        f", {name.replace('_', ' ')} {value}"
        for name, value in network.items()
        if name not in _ALWAYS_SHOWN and value != defaults.get(name)
    ]
    return (
        f"All kinds: {network['encoder']} frozen at {network['image_size']} pixels, grid "
        f"'{network['grid']}', query '{network['query']}', D {network['annotation_dim']}, "
        f"A {network['attention_dim']}, E {network['embedding_dim']}, H {network['hidden_dim']}"
        f"{''.join(chosen)}; "
        f"{recipe['epochs']} epochs of batches of {recipe['batch_size']} photos, learning rate "
        f"{recipe['learning_rate']}, doubly stochastic weight {recipe['doubly_stochastic']}, "
        f"seeds {', '.join(map(str, sorted(seeds)))}. Scores x 100 on {settings['images']} photos of "
        f"{settings['split']}, beam {settings['decoding']['beam_size']}, with 95% bootstrap intervals over "
        "photos; parameters without the encoder; captions a second measured on one machine in turns."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    above, attention, grounding = row[f"above_{REFERENCE}"], row["attention"] or {}, row["grounding"] or {}
    cider = above and _with_interval(above["cider"]["difference"], above["cider"]["interval"], sign="+")
    return [
        f"`{row['kind']}`",
        f"{row['parameters'] / 1e6:.2f}",
        f"{row['train_seconds'] / 60:.1f}",
        f"{row['captions_per_second']:.0f}",
        *(_with_interval(row[name], row["intervals"][name]) for name in SCORES_SHOWN),
        cider or EMPTY,
        *(_share(attention.get(name)) for name in ("entropy", "step_distance", "uniform_distance")),
        *_grounding_cells(grounding),
        *_grounding_cells(grounding.get("reference") or {}),
    ]


def _failed_cells(run: dict[str, Any]) -> list[str]:
    reason = " ".join(str(run["failed"]).split()).replace("|", "/")
    return [f"`{run['kind']}`, seed {run['seed']}", f"failed: {reason}", *[EMPTY] * (len(_HEADINGS) - 2)]


def _grounding_cells(found: dict[str, Any]) -> tuple[str, str]:
    """Pointing accuracy with that of the two baselines, and attention in the boxes."""
    if found.get("pointing_accuracy") is None:
        return EMPTY, EMPTY
    chance = [_share(found["chance"][prior]["pointing_accuracy"]) for prior in ("uniform", "centre")]
    return f"{_share(found['pointing_accuracy'])} ({', '.join(chance)})", _share(found["attention_in_box"])


def _with_interval(value: float, interval: Sequence[float], *, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{interval[0]:{sign}.1f}, {interval[1]:{sign}.1f}]"


def _share(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.2f}"
