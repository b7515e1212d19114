"""A trained captioner as a folder of plain data: safetensors and JSON, nothing that runs when read.

config.json           format, name, licence, training data, model configuration
vocabulary.json       the words, or other tokens, in the order of their ids
weights.safetensors   the network, in half precision
tokenizer.json        how words are cut into pieces, if captions are written in pieces
manifest.json         sha256 of the files above: they are the captioner's identity
scores.json           written by training.evaluate, when it has been run
README.md             the model card, when there is one
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from model.config import ModelConfig
from model.errors import CheckpointError
from model.files import replacing, sha256_bytes, sha256_file, temporary_path, write_temporary
from model.network import CaptionNetwork
from model.tokenizer import Pieces, Tokens, plain_tokens
from model.vocabulary import Vocabulary

FORMAT = "sightline-checkpoint"
FORMAT_VERSION = 2  # 1 called the weights of the recurrent cell otherwise
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "weights.safetensors"
TOKENIZER, MANIFEST, SCORES = "tokenizer.json", "manifest.json", "scores.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What there is to say of a checkpoint beside its weights."""

    name: str
    licence: str  # terms of the weights
    trained_on: str  # the data, in words
    sha256: str = ""  # of the files that make the captioner; empty before it is saved
    scores: dict[str, Any] = field(default_factory=dict)  # as written by training.evaluate


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A captioner's parts, read and verified."""

    config: ModelConfig
    vocabulary: Vocabulary
    network: CaptionNetwork  # in float32, on the CPU
    info: CheckpointInfo


def save_checkpoint(
    folder: Path, network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary, info: CheckpointInfo
) -> str:
    """Write a checkpoint over whatever the folder held; its ``CheckpointInfo.sha256``.

    The new manifest is on disk before the files it belongs to, and a reader accepts either manifest. So if
    only the weights have changed, as from epoch to epoch of a run, then whenever the process dies the
    folder holds the old captioner or the new one, whole.

    Weights are stored in half precision: it halves the file and the captions stay the same.
    """
    assert (len(vocabulary), vocabulary.tokens.kind) == (config.vocabulary_size, config.tokens)
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": info.name,
        "licence": info.licence,
        "trained_on": info.trained_on,
        "model": config.as_record(),
    }
    contents = {
        CONFIG: _as_json(described),
        VOCABULARY: _as_json(vocabulary.words),
        WEIGHTS: save(_half_precision(network)),
    }
    if isinstance(vocabulary.tokens, Pieces):
        contents[TOKENIZER] = f"{vocabulary.tokens.as_record()}\n".encode()
    written = [(write_temporary(folder / name, data), folder / name) for name, data in contents.items()]
    manifest = _as_json({name: sha256_bytes(data) for name, data in contents.items()})
    written.append((write_temporary(folder / MANIFEST, manifest), folder / MANIFEST))
    for temporary, path in written:
        os.replace(temporary, path)
    names = tuple(contents)
    if TOKENIZER not in names:
        (folder / TOKENIZER).unlink(missing_ok=True)  # it was of the captioner before
    (folder / SCORES).unlink(missing_ok=True)  # those were the scores of the weights before
    return _verify(folder, names)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify it whole.

    Raises:
        CheckpointError: the folder is missing, incomplete, damaged, or not one of ours.
    """
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint folder at {folder}.")
    described = _read_described(folder)
    sha256 = _verify(folder, _identity_files(described["model"].get("tokens")))
    config = ModelConfig.from_record(described["model"])
    vocabulary = Vocabulary(_read_json(folder / VOCABULARY, list), _read_tokens(folder, config.tokens))
    if not vocabulary.words:
        raise CheckpointError(f"The vocabulary of {folder} has no words, so nothing can be said with it.")
    if len(vocabulary) != config.vocabulary_size:
        raise CheckpointError(
            f"The vocabulary of {folder} has {len(vocabulary)} tokens, but the network was built for "
            f"{config.vocabulary_size}; the two files belong to different checkpoints."
        )
    info = CheckpointInfo(
        name=described["name"],
        licence=described["licence"],
        trained_on=described["trained_on"],
        sha256=sha256,
        scores=_read_json(folder / SCORES, dict) if (folder / SCORES).exists() else {},
    )
    return Checkpoint(config=config, vocabulary=vocabulary, network=_load_network(folder, config), info=info)


def write_scores(folder: Path, scores: dict[str, Any]) -> None:
    """Keep the scores of a checkpoint beside it."""
    with replacing(folder / SCORES) as file:
        file.write(_as_json(scores))


def _identity_files(tokens: object) -> tuple[str, ...]:
    """The files that make a captioner whose captions are written in ``tokens``."""
    return (CONFIG, VOCABULARY, WEIGHTS, *([TOKENIZER] if tokens == Pieces.kind else []))


def _half_precision(network: CaptionNetwork) -> dict[str, Tensor]:
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }


def _as_json(value: object) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False, indent=1)}\n".encode()


def _read_described(folder: Path) -> dict[str, Any]:
    """config.json, if it is one of ours."""
    described: dict[str, Any] = _read_json(folder / CONFIG, dict)
    if described.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} holds no checkpoint of this program: {CONFIG} has no format {FORMAT!r}."
        )
    if described.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint version {described.get('version')!r}; "
            f"this program reads {FORMAT_VERSION}."
        )
    for name, kind in (("name", str), ("licence", str), ("trained_on", str), ("model", dict)):
        if not isinstance(described.get(name), kind):
            raise CheckpointError(f"{folder / CONFIG} lacks {name!r} or has it in another form.")
    return described


def _verify(folder: Path, names: Sequence[str]) -> str:
    """Compare every file with the manifest; the sha256 of the whole."""
    found = {name: _sha256(folder / name) for name in names}
    manifest = _read_json(folder / MANIFEST, dict)
    pending = temporary_path(folder / MANIFEST)  # left by a writer that died just before its last step
    if manifest != found and not (pending.exists() and _read_json(pending, dict) == found):
        damaged = next((name for name in names if manifest.get(name) != found[name]), MANIFEST)
        raise CheckpointError(
            f"{folder / damaged} is damaged or was changed: its sha256 is not the manifest's."
        )
    whole = "".join(f"{name} {found[name]}\n" for name in names)
    return sha256_bytes(whole.encode())


def _read_tokens(folder: Path, kind: str) -> Tokens:
    """How captions are cut into tokens of a known kind."""
    if kind != Pieces.kind:
        return plain_tokens(kind)
    try:
        return Pieces((folder / TOKENIZER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / TOKENIZER} cannot be read: {error}.") from None


def _load_network(folder: Path, config: ModelConfig) -> CaptionNetwork:
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}.") from None
    network = CaptionNetwork(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its own configuration: {reason}") from None
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{folder / WEIGHTS} holds numbers that are not finite, in {name}.")
    return network


def _read_json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"The checkpoint is incomplete: {path} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}.")
    return value


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint is incomplete: {path} cannot be read ({error.strerror})."
        ) from None
