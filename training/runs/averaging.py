"""Weight averaging: one captioner from several that were fine-tuned from the same weights.

Wortsman et al. 2022, "Model soups" (arXiv 2203.05482).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from model import OptionsError
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.tokenizer import Pieces
from training.runs.initialization import FREE
from training.runs.run_directory import RunDirectory


def average(folders: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the weighted average of the checkpoints in ``folders``.

    Args:
        folders: two or more checkpoints.
        shares: weight of each, relative to their sum.
        output: a folder without a checkpoint.

    Raises:
        CheckpointError, OptionsError, OutputFolderError, TrainingError: a checkpoint cannot be read, they
            cannot be averaged, or the output cannot be written.
    """
    RunDirectory(output).check(resume=False)
    if len(folders) < 2:
        raise OptionsError("There is only one checkpoint; name at least two to average.")
    if len(shares) != len(folders) or min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise OptionsError(
            f"--shares must be {len(folders)} numbers, one for each checkpoint, at least 0 and not all 0."
        )
    parts = [load_checkpoint(folder) for folder in folders]
    first = parts[0]
    for folder, part in zip(folders, parts, strict=True):
        if differing := _differences(first, part):
            raise OptionsError(f"{folder} and {folders[0]} cannot be averaged: they differ in {differing}.")
    states = [part.network.state_dict() for part in parts]
    total = sum(shares)
    with torch.no_grad():
        for name, value in states[0].items():
            if value.is_floating_point():  # the others are counters and the ids of phrases
                columns = zip(states, shares, strict=True)
                value.copy_(sum(state[name] * (share / total) for state, share in columns))
    info = replace(
        first.info,
        licence="; ".join(dict.fromkeys(part.info.licence for part in parts)),
        trained_on="; ".join(dict.fromkeys(part.info.trained_on for part in parts)),
    )
    save_checkpoint(output, first.network, parts[-1].config, first.vocabulary, info)


def _differences(first: Checkpoint, other: Checkpoint) -> str:
    """How two captioners differ that cannot be averaged; empty if they can."""
    ours, theirs = first.config.as_record(), other.config.as_record()
    names = [name for name in ours if ours[name] != theirs[name] and name not in FREE]
    if (first.vocabulary.words, _pieces(first)) != (other.vocabulary.words, _pieces(other)):
        names.append("vocabulary")
    known, weights = first.network.state_dict(), other.network.state_dict()
    if not names and any(known[name].shape != value.shape for name, value in weights.items()):
        names.append("image_size, with weights for each location of the grid")
    if not names and "phrases.ids" in known and not torch.equal(known["phrases.ids"], weights["phrases.ids"]):
        names.append("phrases; average first and train phrases afterwards")
    return ", ".join(names)


def _pieces(checkpoint: Checkpoint) -> str | None:
    """The byte-pair merges of its tokenizer, if it has any."""
    tokens = checkpoint.vocabulary.tokens
    return tokens.as_record() if isinstance(tokens, Pieces) else None
