"""Make one captioner of several that were trained from the same one: the mean of their weights.

    python -m training.average runs/a runs/b --shares 3 1 --output runs/mean

Of runs that began with the same weights the mean may be better than each of them (Wortsman et al. 2022,
"Model soups", arXiv 2203.05482), and it is as quick as one. Score it on val before you believe it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from model import CaptioningError, OptionsError
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.tokenizer import Pieces
from training.runs.initialization import FREE
from training.runs.run_directory import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        average(chosen.checkpoints, chosen.shares or [1.0] * len(chosen.checkpoints), chosen.output)
    except KeyboardInterrupt:
        print("\naverage: stopped; nothing was written.", file=sys.stderr)
        return 130
    except (CaptioningError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 2
    return 0


def average(folders: Sequence[Path], shares: Sequence[float], output: Path) -> None:
    """Write the mean of the checkpoints of ``folders``.

    Args:
        folders: two or more checkpoints.
        shares: of each, in any unit.
        output: a folder that holds no checkpoint yet.

    Raises:
        CheckpointError, OptionsError, TrainingError: they cannot be read, they have no mean, or the output is
            not free.
    """
    RunFolder(output).check_free()
    if len(folders) < 2:
        raise OptionsError("One captioner is its own mean; name two or more.")
    if len(shares) != len(folders) or min(shares) < 0 or not 0 < sum(shares) < math.inf:
        raise OptionsError(f"--shares are {len(folders)} numbers from 0, not all 0: one for each captioner.")
    parts = [load_checkpoint(folder) for folder in folders]
    first = parts[0]
    for folder, part in zip(folders, parts, strict=True):
        if differing := _differences(first, part):
            raise OptionsError(f"{folder} and {folders[0]} have no mean: they differ in {differing}.")
    states = [part.network.state_dict() for part in parts]
    whole = sum(shares)
    with torch.no_grad():
        for name, value in states[0].items():
            if value.is_floating_point():  # the rest counts, or names phrases
                columns = zip(states, shares, strict=True)
                value.copy_(sum(state[name] * (share / whole) for state, share in columns))
    info = replace(
        first.info,
        licence="; ".join(dict.fromkeys(part.info.licence for part in parts)),
        trained_on="; ".join(dict.fromkeys(part.info.trained_on for part in parts)),
    )
    save_checkpoint(output, first.network, parts[-1].config, first.vocabulary, info)


def _differences(first: Checkpoint, other: Checkpoint) -> str:
    """In what two captioners differ whose weights do not mean the same; empty if they do."""
    ours, theirs = first.config.as_record(), other.config.as_record()
    names = [name for name in ours if ours[name] != theirs[name] and name not in FREE]
    if (first.vocabulary.words, _pieces(first)) != (other.vocabulary.words, _pieces(other)):
        names.append("vocabulary")
    known, weights = first.network.state_dict(), other.network.state_dict()
    if not names and any(known[name].shape != value.shape for name, value in weights.items()):
        names.append("image_size, where weights belong to places of the grid")
    if not names and "phrases.ids" in known and not torch.equal(known["phrases.ids"], weights["phrases.ids"]):
        names.append("their phrases; take the mean first and learn phrases afterwards")
    return ", ".join(names)


def _pieces(checkpoint: Checkpoint) -> str | None:
    """How its words are cut into pieces, if they are."""
    tokens = checkpoint.vocabulary.tokens
    return tokens.as_record() if isinstance(tokens, Pieces) else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="the captioners; the first gives the name, the last the size of photos, dropout and blur",
    )
    add("--shares", type=float, nargs="+", metavar="X", help="of each, in any unit, default all the same")
    add("--output", type=Path, required=True, metavar="RUN", help="folder to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
