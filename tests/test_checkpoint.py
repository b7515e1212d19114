"""Checkpoints: saving, loading, and every kind of damage."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import draw_photo
from safetensors.torch import load_file, save_file

from model import Captioner, CheckpointError, CheckpointInfo, ModelConfig
from model.checkpoint import load_checkpoint, save_checkpoint, write_scores
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary


def rewrite_manifest(folder: Path) -> None:
    """What someone who tampers would do."""
    from hashlib import sha256

    names = ("config.json", "vocabulary.json", "weights.safetensors", "tokenizer.json")
    files = [folder / name for name in names if (folder / name).exists()]
    sums = {file.name: sha256(file.read_bytes()).hexdigest() for file in files}
    (folder / "manifest.json").write_text(json.dumps(sums))


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    rewrite_manifest(path.parent)


def test_saved_captioner_captions_as_before(captioner: Captioner, checkpoint: Path) -> None:
    photos = [draw_photo(seed) for seed in range(4)]
    loaded = Captioner.load(checkpoint)
    for [before], [after] in zip(captioner.caption(photos), loaded.caption(photos), strict=True):
        assert after.text == before.text
        assert after.log_prob == pytest.approx(before.log_prob, rel=1e-2)  # half precision on disk


def test_old_checkpoint_loads_with_defaults(captioner: Captioner, checkpoint: Path) -> None:
    newer = ("attention_heads", "cell", "gate", "grid", "grid_layers", "query", "tokens", "language")
    change_json(checkpoint / "config.json", lambda c: [c["model"].pop(name) for name in newer])
    assert Captioner.load(checkpoint).config == captioner.config


def test_metadata_round_trips(checkpoint: Path, config: ModelConfig, vocabulary: Vocabulary) -> None:
    write_scores(checkpoint, {"cider": 61.5})
    loaded = load_checkpoint(checkpoint)
    assert loaded.config == config
    assert loaded.vocabulary.words == vocabulary.words
    assert (loaded.info.name, loaded.info.scores) == ("tiny", {"cider": 61.5})
    assert len(loaded.info.sha256) == 64


def test_damaged_scores_are_ignored_with_a_warning(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (checkpoint / "scores.json").write_text("[")
    assert load_checkpoint(checkpoint).info.scores == {}
    assert "scores.json cannot be read as JSON" in caplog.text


def test_sha256_depends_on_weights_not_scores(
    tmp_path: Path, checkpoint: Path, network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary
) -> None:
    before = load_checkpoint(checkpoint).info.sha256
    write_scores(checkpoint, {"cider": 1.0})
    assert load_checkpoint(checkpoint).info.sha256 == before
    with torch.no_grad():
        network.decoder.output.bias.add_(1)
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    save_checkpoint(checkpoint, network, config, vocabulary, info)
    after = load_checkpoint(checkpoint).info
    assert after.sha256 != before
    assert after.scores == {}  # they were the scores of the weights before


def test_killed_save_leaves_whole_checkpoint(
    checkpoint: Path,
    network: CaptionNetwork,
    config: ModelConfig,
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    replace = os.replace
    for survived in range(4):
        with torch.no_grad():
            network.decoder.output.bias.add_(1)
        calls = iter(range(100))

        def die_later(source: Path, target: Path, calls=calls, survived=survived) -> None:
            if next(calls) >= survived:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", die_later)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(checkpoint, network, config, vocabulary, info)
        monkeypatch.setattr(os, "replace", replace)
        load_checkpoint(checkpoint)


def poison(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights["decoder.output.bias"][3] = torch.nan
    save_file(weights, folder / "weights.safetensors")
    rewrite_manifest(folder)


def drop_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    del weights["decoder.output.bias"]
    save_file(weights, folder / "weights.safetensors")
    rewrite_manifest(folder)


def cut(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "is missing"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "cannot be read"),
    "cut weights": (lambda f: cut(f, "weights.safetensors"), "damaged"),
    "cut vocabulary": (lambda f: cut(f, "vocabulary.json"), "damaged"),
    "cut config": (lambda f: cut(f, "config.json"), "cannot be read as JSON"),
    "cut weights, new manifest": (
        lambda f: (cut(f, "weights.safetensors"), rewrite_manifest(f)),
        "cannot be read",
    ),
    "a pickle for weights": (
        lambda f: ((f / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n."), rewrite_manifest(f)),
        "cannot be read",
    ),
    "NaN weights": (poison, "not finite"),
    "a tensor too few": (drop_a_tensor, "does not fit"),
    "another vocabulary": (
        lambda f: ((f / "vocabulary.json").write_text('["a", "dog"]'), rewrite_manifest(f)),
        "different checkpoints",
    ),
    "no words": (
        lambda f: (
            (f / "vocabulary.json").write_text("[]"),
            change_json(f / "config.json", lambda c: c["model"].update(vocabulary_size=4)),
        ),
        "is empty",
    ),
    "a list for a word": (
        lambda f: ((f / "vocabulary.json").write_text('[["a"]]'), rewrite_manifest(f)),
        "list of words",
    ),
    "a word twice": (
        lambda f: ((f / "vocabulary.json").write_text('["a", "a"]'), rewrite_manifest(f)),
        "more than once",
    ),
    "another program's": (
        lambda f: change_json(f / "config.json", lambda c: c.pop("format")),
        "not a checkpoint of this program",
    ),
    "of the future": (lambda f: change_json(f / "config.json", lambda c: c.update(version=99)), "version 99"),
    "an unknown field": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(warp=9)),
        "unknown fields warp",
    ),
    "a missing field": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].pop("vocabulary_size")),
        "incomplete",
    ),
    "an impossible size": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(hidden_dim=-7)),
        "hidden_dim",
    ),
    "another encoder": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(encoder="eye")),
        "no encoder",
    ),
    "another attention": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(attention="eye")),
        "no attention kind 'eye'.*additive",
    ),
    "a list for an attention": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(attention=["eye"])),
        "attention",
    ),
    "weights of another attention": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(attention="general")),
        "does not fit",
    ),
    "dot attention of unequal widths": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(attention="dot")),
        "hidden_dim and annotation_dim equal",
    ),
    "heads that do not divide": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(attention="multi_head")),
        "multiple of attention_heads",
    ),
    "weights of another cell": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(cell="gru")),
        "does not fit",
    ),
    "another cell": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(cell="rnn")),
        "cell = 'rnn'.*lstm, gru",
    ),
    "another gate": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(gate="garden")),
        "gate = 'garden'.*scalar, vector, off",
    ),
    "other tokens": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(tokens="syllables")),
        "tokens = 'syllables'.*words, characters, pieces",
    ),
    "a width of terabytes": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(hidden_dim=1_000_000)),
        "does not fit its own configuration",
    ),
    "a list for the kind of tokens": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(tokens=["words"])),
        "tokens = .*words, characters, pieces",
    ),
    "pieces without a tokenizer": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(tokens="pieces")),
        r"incomplete.*tokenizer\.json",
    ),
    "pieces of another program": (
        lambda f: (
            (f / "tokenizer.json").write_text('{"model": "none"}'),
            change_json(f / "config.json", lambda c: c["model"].update(tokens="pieces")),
        ),
        "not in the format of the tokenizers library",
    ),
    "pieces that are no text": (
        lambda f: (
            (f / "tokenizer.json").write_bytes(b"\xff\xfe"),
            change_json(f / "config.json", lambda c: c["model"].update(tokens="pieces")),
        ),
        r"tokenizer\.json",
    ),
    "captions of a million words": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(caption_length=1_000_000)),
        "caption_length.*1 to 200",
    ),
    "a negative number of layers": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(grid_layers=-1)),
        "grid_layers",
    ),
    "layers too wide for their heads": (
        lambda f: change_json(f / "config.json", lambda c: c["model"].update(grid_layers=1)),
        "multiple of 4 and of attention_heads",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoint_is_refused(checkpoint: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(checkpoint)
    with pytest.raises(CheckpointError, match=message) as raised:
        Captioner.load(checkpoint)
    assert "\n" not in str(raised.value)


def test_missing_checkpoint_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        Captioner.load(tmp_path / "nothing")


def test_changed_weights_fail_the_checksum(checkpoint: Path) -> None:
    path = checkpoint / "weights.safetensors"
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError):
            load_checkpoint(checkpoint)
