"""Weight averaging of checkpoints, and which cannot be averaged."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import config_of_kind, random_network

from model import CheckpointInfo
from model.checkpoint import load_checkpoint, save_checkpoint
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary
from training import average


@pytest.fixture
def save(tmp_path, vocabulary):
    """Writes a network as a checkpoint of a name."""

    def write(name, network, config, words=vocabulary, trained_on="nothing"):
        info = CheckpointInfo(name=name, licence="none", trained_on=trained_on)
        save_checkpoint(tmp_path / name, network, config, words, info)
        return tmp_path / name

    return write


@pytest.fixture
def pair(save, network, config):
    """Two captioners of one form."""
    torch.manual_seed(8)
    return save("one", network, config), save("two", CaptionNetwork(config), config)


def mean_of(*folders: Path, shares: tuple[str, ...] = ()) -> Path:
    """What the command makes of checkpoints."""
    output = folders[0].parent / "-".join(("mean", *(folder.name for folder in folders), *shares))
    arguments = [*map(str, folders), "--output", str(output)]
    assert average.main([*arguments, *(("--shares", *shares) if shares else ())]) == 0
    return output


@pytest.mark.parametrize(("shares", "first"), [((), 0.5), (("3", "1"), 0.75), (("0", "2"), 0.0)])
def test_weights_are_the_mean(pair, shares, first):
    one, two = (load_checkpoint(folder).network.state_dict() for folder in pair)
    assert not torch.equal(one["decoder.embedding.weight"], two["decoder.embedding.weight"])
    for name, value in load_checkpoint(mean_of(*pair, shares=shares)).network.state_dict().items():
        expected = first * one[name] + (1 - first) * two[name]
        torch.testing.assert_close(value, expected.to(value.dtype), rtol=1e-3, atol=1e-3)


def test_average_of_equal_captioners_is_unchanged(pair):
    one, again = load_checkpoint(pair[0]), load_checkpoint(mean_of(pair[0], pair[0]))
    assert again.info.sha256 == one.info.sha256


def test_average_combines_metadata(save, network, config):
    one = save("one", network, config)
    two = save("two", network, replace(config, image_size=56), trained_on="something")
    found = load_checkpoint(mean_of(one, two))
    assert (found.info.name, found.info.licence) == ("one", "none")
    assert found.info.trained_on == "nothing; something"
    assert found.config.image_size == 56


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the command ends."""
    assert average.main(list(map(str, arguments))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_incompatible_checkpoints_are_refused(pair, save, network, config, tmp_path, capsys):
    out = ("--output", tmp_path / "out")
    assert "at least two to average" in refusal(capsys, pair[0], *out)
    assert "no checkpoint folder" in refusal(capsys, pair[0], tmp_path / "nowhere", *out)
    assert "already has" in refusal(capsys, *pair, "--output", pair[1])
    for shares in ((1,), (1, 2, 3), (0, 0), ("inf", 1), ("nan", 1)):
        assert "--shares must be 2 numbers" in refusal(capsys, *pair, *out, "--shares", *shares)
    wider = replace(config, hidden_dim=8)
    assert "differ in hidden_dim" in refusal(
        capsys, pair[0], save("wide", random_network(wider), wider), *out
    )
    words = save("words", network, config, Vocabulary(("a", "dog", "cat", "runs", "sits", "on", "snow")))
    assert "differ in vocabulary" in refusal(capsys, pair[0], words, *out)
    assert not (tmp_path / "out").exists()


def test_different_grids_cannot_be_averaged(save, config, tmp_path, capsys):
    small = config_of_kind(config, "location")
    large = replace(small, image_size=64)
    parts = save("small", random_network(small), small), save("large", random_network(large), large)
    assert "location of the grid" in refusal(capsys, *parts, "--output", tmp_path / "out")


def test_different_endings_cannot_be_averaged(save, config, capsys):
    with_table = replace(config, endings=2)
    one, other = random_network(with_table), random_network(with_table)
    for network, dangles in ((one, True), (other, False)):
        network.endings.fill({(4,): True, (5, 4): dangles})
    folders = save("one", one, with_table), save("other", other, with_table)
    assert "endings" in refusal(capsys, *folders, "--output", folders[0].parent / "none")
    mean = load_checkpoint(mean_of(folders[0], save("again", one, with_table)))
    assert mean.network.endings.as_dict() == one.endings.as_dict()


def test_different_phrases_cannot_be_averaged(save, config, capsys):
    with_head = replace(config, phrases=5, phrase_dim=3)
    one, other = random_network(with_head), random_network(with_head)
    other.phrases.ids[2, 0] = 7
    folders = save("one", one, with_head), save("other", other, with_head)
    assert "phrases" in refusal(capsys, *folders, "--output", folders[0].parent / "none")
    assert mean_of(folders[0], save("again", one, with_head)).exists()
