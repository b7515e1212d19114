"""Encoders: grids of features and pretrained weights."""

from pathlib import Path
from typing import NoReturn
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from model.encoder import Encoder, encoder_names
from model.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "image_size", "grid", "width"),
    [
        ("tiny_cnn", 40, (5, 5), 64),
        ("efficientnet_v2_b0", 64, (2, 2), 1280),
        ("resnet18", 64, (2, 2), 512),
        ("mobilenet_v3_small", 96, (3, 3), 576),
        ("shufflenet_v2_x0_5", 64, (2, 2), 1024),
        ("mnasnet0_5", 64, (2, 2), 1280),
        ("regnet_y_400mf", 64, (2, 2), 440),
        ("squeezenet1_1", 64, (3, 3), 512),
    ],
)
def test_encoder_output_shape(name: str, image_size: int, grid: tuple[int, int], width: int) -> None:
    encoder = Encoder(name, image_size).eval()
    features = encoder(torch.zeros(2, 3, image_size, image_size))
    assert (encoder.rows, encoder.columns) == grid
    assert features.shape == (2, grid[0] * grid[1], width)
    assert encoder.feature_dim == width


def test_features_are_in_row_major_order() -> None:
    torch.manual_seed(0)
    encoder = Encoder("tiny_cnn", 40).eval()
    image = torch.zeros(1, 3, 40, 40)
    image[:, :, 12, 28] = 9.0  # row 1, column 3 of cells of 8 pixels
    change = (encoder(image) - encoder(torch.zeros_like(image))).norm(dim=2)[0]
    assert int(change.argmax()) == 1 * encoder.columns + 3


def test_batch_norm_statistics_are_frozen() -> None:
    encoder = Encoder("resnet18", 64).train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(torch.randn(4, 3, 64, 64))
    assert all(torch.equal(before[name], value) for name, value in encoder.named_buffers())


def test_classifier_or_feature_weights_load(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = get_model("mobilenet_v3_small", weights=None)
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    torch.save(network.features.state_dict(), tmp_path / "features.pth")
    image = torch.randn(1, 3, 64, 64)
    expected = network.features.eval()(image).flatten(2).transpose(1, 2)
    for file in ("whole.safetensors", "features.pth"):
        encoder = Encoder("mobilenet_v3_small", 64).eval()
        encoder.load_pretrained(tmp_path / file)
        torch.testing.assert_close(encoder(image), expected, rtol=1e-3, atol=1e-4)


def test_sequential_backbone_weights_load(tmp_path: Path) -> None:
    network = get_model("resnet18", weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    encoder = Encoder("resnet18", 64)
    encoder.load_pretrained(tmp_path / "resnet18.pth")
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    torch.testing.assert_close(first.weight, network.conv1.weight)


def test_published_weights_come_from_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    network = get_model("mobilenet_v3_small", weights=None)
    asked = []

    def fetched(url: str, **_: object) -> dict[str, torch.Tensor]:
        asked.append(url)
        return network.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetched)
    encoder = Encoder("mobilenet_v3_small", 64)
    encoder.load_pretrained(None)
    assert "mobilenet_v3_small" in asked[0]
    assert torch.equal(next(encoder.parameters()), next(network.parameters()))


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("invalid hash value")])
def test_failed_download_offers_alternatives(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(url: str, **_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", failing)
    with pytest.raises(CheckpointError, match="mobilenet_v3_small cannot be downloaded .*--encoder-weights"):
        Encoder("mobilenet_v3_small", 64).load_pretrained(None)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    save_file({"features.0.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="does not hold weights of mobilenet_v3_small"):
        Encoder("mobilenet_v3_small", 64).load_pretrained(tmp_path / "other.safetensors")
    save_file({"something.weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="others are missing"):
        Encoder("mobilenet_v3_small", 64).load_pretrained(tmp_path / "foreign.safetensors")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04K\x01."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_unreadable_weights_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"broken{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Encoder("tiny_cnn", 40).load_pretrained(tmp_path / f"broken{suffix}")


def test_file_without_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match="not a dictionary of named tensors"):
        Encoder("tiny_cnn", 40).load_pretrained(tmp_path / "tensor.pth")


def test_unknown_encoder_error_lists_known_encoders() -> None:
    with pytest.raises(CheckpointError, match="resnet50"):
        Encoder("resnet5000", 64)
    assert "efficientnet_v2_b0" in encoder_names()
    assert "vit_b_16" not in encoder_names()


def test_too_small_image_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match="too small"):
        Encoder("squeezenet1_1", 8)


def test_encoder_without_published_weights_is_refused() -> None:
    with pytest.raises(CheckpointError, match="publishes no weights"):
        Encoder("tiny_cnn", 40).load_pretrained(None)
