"""Checkpoints: a trained captioner as a folder of plain data, safetensors and JSON, never pickle.

config.json           format, name, licence, training data, model configuration
vocabulary.json       the words, or other tokens, in the order of their ids
weights.safetensors   the network, in half precision
tokenizer.json        the byte-pair encoding, if captions are written in pieces
manifest.json         SHA-256 of the files above, which identify the captioner
scores.json           written by training.evaluate, if it has been run
README.md             the model card, if there is one
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from model.confidence import FEATURES
from model.config import ModelConfig
from model.decoder import Decoder
from model.errors import CheckpointError
from model.evidence import WordDetector
from model.files import replacing, sha256_bytes, sha256_file, temporary_path, write_temporary
from model.labels import LabelHead
from model.network import CaptionNetwork, GridLayers
from model.phrases import PhraseHead
from model.tokenizer import Pieces, Tokens, plain_tokens
from model.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

FORMAT = "sightline-checkpoint"
FORMAT_VERSION = 2  # version 1 had other names for the weights of the recurrent cell
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.json", "weights.safetensors"
TOKENIZER, MANIFEST, SCORES = "tokenizer.json", "manifest.json", "scores.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """The metadata of a checkpoint."""

    name: str
    licence: str  # terms of the weights
    trained_on: str  # description of the training data
    sha256: str = ""  # of the files that identify the captioner; empty before it is saved
    scores: dict[str, Any] = field(default_factory=dict)  # as written by training.evaluate


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The verified content of a checkpoint folder."""

    config: ModelConfig
    vocabulary: Vocabulary
    network: CaptionNetwork  # in float32, on the CPU
    info: CheckpointInfo


def save_checkpoint(
    folder: Path, network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary, info: CheckpointInfo
) -> str:
    """Write a checkpoint, replacing what the folder held; returns its ``CheckpointInfo.sha256``.

    The new manifest is on disk before the files it lists are replaced, and a reader accepts either manifest.
    So if only the weights change, as between the epochs of a run, a crash leaves the old captioner or the new
    one.

    Weights are stored in half precision, which halves the file and does not change the captions.
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
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    contents = {
        CONFIG: _as_json(described),
        VOCABULARY: _as_json(vocabulary.words),
        WEIGHTS: save(weights),
    }
    if isinstance(vocabulary.tokens, Pieces):
        contents[TOKENIZER] = f"{vocabulary.tokens.as_record()}\n".encode()
    names = list(contents)
    contents[MANIFEST] = _as_json({name: sha256_bytes(data) for name, data in contents.items()})
    written = {folder / name: write_temporary(folder / name, data) for name, data in contents.items()}
    for path, temporary in written.items():
        os.replace(temporary, path)
    if TOKENIZER not in names:
        (folder / TOKENIZER).unlink(missing_ok=True)  # of the previous captioner
    (folder / SCORES).unlink(missing_ok=True)  # of the previous weights
    return _verify(folder, names)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint. Unreadable scores are ignored with a warning.

    Raises:
        CheckpointError: the folder is missing, incomplete or damaged, or is not a checkpoint.
    """
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint folder at {folder}.")
    described = _read_described(folder)
    names = [CONFIG, VOCABULARY, WEIGHTS]
    if described["model"].get("tokens") == Pieces.kind:
        names.append(TOKENIZER)
    sha256 = _verify(folder, names)
    config = ModelConfig.from_record(described["model"])
    vocabulary = Vocabulary(_read_json(folder / VOCABULARY, list), _read_tokens(folder, config.tokens))
    if not vocabulary.words:
        raise CheckpointError(f"The vocabulary of {folder} is empty; a captioner needs at least one word.")
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
        scores=_read_scores(folder),
    )
    return Checkpoint(config=config, vocabulary=vocabulary, network=_load_network(folder, config), info=info)


def write_scores(folder: Path, scores: dict[str, Any]) -> None:
    """Write the scores of a checkpoint into its folder."""
    with replacing(folder / SCORES) as file:
        file.write(_as_json(scores))


def _read_scores(folder: Path) -> dict[str, Any]:
    """The scores, which only inform; a captioner works without them."""
    if not (folder / SCORES).exists():
        return {}
    try:
        scores: dict[str, Any] = _read_json(folder / SCORES, dict)
    except CheckpointError as error:
        logger.warning("%s The checkpoint is used without scores.", error)
        return {}
    return scores


def _as_json(value: object) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False, indent=1)}\n".encode()


def _read_described(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = _read_json(folder / CONFIG, dict)
    if described.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} is not a checkpoint of this program: the format in {CONFIG} is not {FORMAT!r}."
        )
    if described.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint version {described.get('version')!r}; "
            f"this program reads {FORMAT_VERSION}."
        )
    for name, kind in (("name", str), ("licence", str), ("trained_on", str), ("model", dict)):
        if not isinstance(described.get(name), kind):
            raise CheckpointError(f"{folder / CONFIG} has no valid {name!r}; it must be a {kind.__name__}.")
    return described


def _verify(folder: Path, names: Sequence[str]) -> str:
    """Compare every file with the manifest; returns the SHA-256 of all."""
    found = {name: _sha256(folder / name) for name in names}
    manifest = _read_json(folder / MANIFEST, dict)
    pending = temporary_path(folder / MANIFEST)  # left by a crash just before the last step of saving
    if manifest != found and not (pending.exists() and _read_json(pending, dict) == found):
        damaged = next((name for name in names if manifest.get(name) != found[name]), MANIFEST)
        raise CheckpointError(
            f"{folder / damaged} is damaged or was modified: its SHA-256 differs from the manifest."
        )
    whole = "".join(f"{name} {found[name]}\n" for name in names)
    return sha256_bytes(whole.encode())


def _read_tokens(folder: Path, kind: str) -> Tokens:
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
    _check_size(folder, config)
    network = CaptionNetwork(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
        raise CheckpointError(f"{folder / WEIGHTS} does not fit its own configuration: {reason}") from None
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{folder / WEIGHTS} has values that are not finite in {name}.")
    return network


def _check_size(folder: Path, config: ModelConfig) -> None:
    """Check, before anything is allocated, that the file of weights can hold the network's parameters."""
    if config.confidence not in (0, len(FEATURES)):
        raise CheckpointError(
            f"The confidence in {folder} is computed from {config.confidence} features, this program has "
            f"{len(FEATURES)}; run training.confidence on the captioner it was added to."
        )
    with torch.device("meta"):
        parts: list[nn.Module] = [Decoder(config, rows=1, columns=1)]
        if config.grid_layers:
            parts.append(GridLayers(config, rows=1, columns=1))
        if config.phrases:
            parts.append(PhraseHead(1, config.phrases, config.phrase_dim))
        if config.evidence:
            parts.append(WordDetector(1, config.evidence, config.evidence_dim))
        if config.labels:
            parts.append(LabelHead(1, config.labels, config.label_dim))
    needed = sum(2 * value.numel() for part in parts for value in part.parameters())  # bytes, half precision
    stored = (folder / WEIGHTS).stat().st_size
    if needed > stored:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit its own configuration: it has {stored} bytes, but such a "
            f"network needs at least {needed}."
        )


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
