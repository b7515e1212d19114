"""Small things every test can ask for. All sizes differ, so that a swapped axis fails."""

import math
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from model import Captioner, CheckpointInfo, ModelConfig
from model.checkpoint import save_checkpoint
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
WORDS = ("a", "dog", "cat", "runs", "sits", "on", "grass")
TINY = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")


def pytest_configure() -> None:
    """Settings here and in what tests start.

    One torch thread: tensors are tiny, and two processes share the cores. Ctrl-C is not ignored, as it is in
    what a shell starts in the background.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def draw_photo(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An image of a few coloured boxes, the same for the same seed."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        left, top = rng.randrange(size[0] - 8), rng.randrange(size[1] - 8)
        colour = tuple(rng.randrange(256) for _ in range(3))
        pen.rectangle((left, top, left + rng.randrange(4, 32), top + rng.randrange(4, 32)), fill=colour)
    return image


@pytest.fixture(autouse=True)
def _no_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: tests read standard error line by line."""
    monkeypatch.setattr("training.data.validation.PROGRESS_DELAY", math.inf)


@pytest.fixture
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw neither curves nor sample pages, which take longer than the training of a tiny network."""
    monkeypatch.setattr("training.reporting.reporter.write_curves", lambda *_: None)
    monkeypatch.setattr("training.reporting.reporter.write_samples", lambda *_: None)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(WORDS)


@pytest.fixture(scope="session")
def config(vocabulary: Vocabulary) -> ModelConfig:
    """V 11, L 5 x 5, D 6, A 3, E 9, H 7."""
    return ModelConfig(
        vocabulary_size=len(vocabulary),
        encoder="tiny_cnn",
        image_size=40,
        annotation_dim=6,
        attention_dim=3,
        embedding_dim=9,
        hidden_dim=7,
    )


def config_of_kind(config: ModelConfig, kind: str) -> ModelConfig:
    """The configuration with another kind of attention, and the sizes that kind needs."""
    needs = {"dot": {"hidden_dim": config.annotation_dim}, "multi_head": {"attention_dim": 4}}
    return replace(config, attention=kind, attention_heads=2, **needs.get(kind, {}))


@pytest.fixture
def network(config: ModelConfig) -> CaptionNetwork:
    return random_network(config)


def random_network(config: ModelConfig) -> CaptionNetwork:
    """Random weights, so large that captions and maps differ from photo to photo."""
    torch.manual_seed(6)
    network = CaptionNetwork(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(6 if name.startswith("decoder") else 2)
        network.decoder.output.bias[Vocabulary.end_id] -= 2
    return network


@pytest.fixture
def captioner(network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary) -> Captioner:
    return Captioner(network, config, vocabulary, TINY)


@pytest.fixture
def checkpoint(tmp_path: Path, network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary) -> Path:
    """A checkpoint folder of the tiny captioner."""
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, network, config, vocabulary, TINY)
    return folder
