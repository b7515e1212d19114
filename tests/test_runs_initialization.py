"""Fine-tuning: known words and weights are kept, and new words are added."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import WORDS, config_of_kind, draw_photo, random_network

from model import Captioner, CheckpointInfo, DecodingOptions, OptionsError
from model.checkpoint import load_checkpoint, save_checkpoint
from training import fit
from training.runs.initialization import WORD_ROWS, continued_config, grown_network

NEW = ("zebra", "saxophone")
CAPTIONS = [["a", "zebra", "runs"], ["zebra", "on", "grass"], ["a", "saxophone"]]


@pytest.fixture
def grown(checkpoint):
    start = load_checkpoint(checkpoint)
    vocabulary = start.vocabulary.grown(CAPTIONS, min_count=1)
    config = replace(start.config, vocabulary_size=len(vocabulary))
    return start, vocabulary, config, grown_network(start, config, vocabulary, CAPTIONS)


def test_known_words_keep_their_ids(grown):
    start, vocabulary, _, _ = grown
    assert vocabulary.words[: len(WORDS)] == list(WORDS) == start.vocabulary.words
    assert vocabulary.words[len(WORDS) :] == ["zebra", "saxophone"]  # most frequent first


def test_weights_are_copied(grown):
    start, _, _, network = grown
    old = start.network.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value[: len(old[name])] if name in WORD_ROWS else value, old[name]), name


def test_captions_stay_while_new_words_are_unlikely(grown, captioner):
    start, vocabulary, config, network = grown
    photos = [draw_photo(seed) for seed in range(4)]
    with torch.no_grad():
        network.decoder.output.bias[-len(NEW) :] = -1e4
    options = DecodingOptions(beam_size=2)
    before = Captioner(start.network, start.config, start.vocabulary, start.info).caption(photos, options)
    after = Captioner(network, config, vocabulary, start.info).caption(photos, options)
    assert [one[0].text for one in after] == [one[0].text for one in before]


def test_new_words_get_moderate_probability(grown):
    _, vocabulary, _, network = grown
    rows = network.decoder.embedding.weight
    known, new = rows[4:-2].std().item(), rows[-2:].std().item()
    assert new == pytest.approx(known, rel=0.5)
    bias = network.decoder.output.bias
    assert bias[vocabulary.encode(["zebra"])[0]] > bias[vocabulary.encode(["saxophone"])[0]]


def test_other_network_is_named(config):
    assert continued_config(config, {"dropout": 0.1, "attention": config.attention}).dropout == 0.1
    with pytest.raises(OptionsError, match="--hidden-dim is 9.*has 7.*--start-from"):
        continued_config(config, {"hidden_dim": 9})


@pytest.fixture
def zoo(tmp_path: Path) -> list[str]:
    """Twelve photos of what the checkpoint has no word for, as a CSV file."""
    lines = ["image,caption,split"]
    for number in range(12):
        draw_photo(number).save(tmp_path / f"{number}.jpg")
        lines.append(f"{number}.jpg,A zebra sits on grass {number % 2},{'val' if number > 9 else 'train'}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    return ["--captions", str(tmp_path / "mine.csv"), "--images", str(tmp_path)]


@pytest.fixture
def save_kind(tmp_path, config, vocabulary):
    """Writes a captioner with a kind of attention."""

    def write(kind: str) -> Path:
        chosen = config_of_kind(config, kind)
        info = CheckpointInfo(name=kind, licence="none", trained_on="nothing")
        save_checkpoint(tmp_path / kind, random_network(chosen), chosen, vocabulary, info)
        return tmp_path / kind

    return write


@pytest.mark.usefixtures("without_reports")
def test_finetuning_command(zoo, checkpoint, tmp_path):
    run = tmp_path / "run"
    more = ["--epochs", "12", "--frozen-epochs", "0", "--learning-rate", "0.02", "--dropout", "0"]
    more += ["--validate-every", "12", "--workers", "0"]
    done = fit.main([*zoo, "--start-from", str(checkpoint), "--output", str(run), "--device", "cpu", *more])
    assert done == 0
    trained, start = Captioner.load(run / "last"), load_checkpoint(checkpoint)
    assert trained.config == replace(start.config, vocabulary_size=len(WORDS) + 4 + 3, dropout=0.0)
    assert trained.vocabulary.words == [*WORDS, "zebra", "0", "1"]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["cross_entropy"] < log[0]["cross_entropy"] / 1.4


def test_other_network_option_is_refused_first(zoo, checkpoint, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [*zoo, "--start-from", str(checkpoint), "--output", str(run), "--attention", "dot"]
    assert fit.main(arguments) == 2
    assert "--attention is dot, but the captioner to start from has additive" in capsys.readouterr().err
    assert not run.exists()


def test_image_size_may_grow(zoo, save_kind, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = [*zoo, "--image-size", "64", "--epochs", "1", "--workers", "0", "--output", str(run)]
    assert fit.main([*arguments, "--start-from", str(save_kind("location"))]) == 2
    assert "--image-size is 64" in capsys.readouterr().err
    assert fit.main([*arguments, "--start-from", str(save_kind("additive"))]) == 0
    assert Captioner.load(run).config.image_size == 64


def test_invalid_checkpoint_is_one_line(zoo, tmp_path, capsys):
    assert fit.main([*zoo, "--start-from", str(tmp_path / "none"), "--output", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()[-1:]) == 1
    assert not (tmp_path / "run").exists()
