"""The convolutional encoder: from a photo to the grid of features the decoder attends to.

Knows nothing of words. Any torchvision classification CNN can serve, by its torchvision name, and so
can ``efficientnet_v2_b0``, which torchvision's classes can build but do not name, and ``tiny_cnn``,
four layers that learn a world of simple shapes from nothing in seconds.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

from model.errors import CheckpointError

# Families without a feature grid, and, the last two, with branches beside their chain of layers.
_NOT_A_CONVOLUTIONAL_GRID = ("vit_", "swin", "maxvit", "googlenet", "inception")


class Encoder(nn.Module):
    """A CNN without its classifier. The feature grid of a square photo, row by row."""

    def __init__(self, name: str, image_size: int, grid: str = "last") -> None:
        """Weights are random.

        Args:
            name: see ``encoder_names()``.
            image_size: S, pixels a side.
            grid: "last", the last feature grid; or "joined", that with the last one of twice its rows and
                columns, whose cells see less but see it where they are.

        Raises:
            CheckpointError: there is no encoder of that name, photos are too small for it, or it has no
                grid of twice the size.
        """
        super().__init__()
        self.name = name
        self.trunk = _trunk(_classifier(name))
        # Convolutions on a CPU run about one and a half times as fast in this layout.
        self.to(memory_format=torch.channels_last)
        shapes = _probe(self.trunk, name, image_size)
        self.feature_dim, self.rows, self.columns = shapes[-1]
        self.fine_dim = 0  # width of the joined grid's features
        self._joined_at = -1  # the layer of the trunk that makes it
        if grid == "joined":
            self._joined_at = _last_of_twice_the_size(shapes, name)
            self.fine_dim, self.rows, self.columns = shapes[self._joined_at]

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Of one photo's features, as ``forward`` gives them."""
        cells = self.rows * self.columns
        return (
            (cells // 4, self.feature_dim + 4 * self.fine_dim) if self.fine_dim else (cells, self.feature_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S), normalized, as features of the cells of the last grid, row by row.

        Returns:
            (B, rows * columns, F). With a joined grid (B, rows / 2 * columns / 2, F + 4 F'): each cell of the
            last grid followed by the four cells of the joined one that lie on it (``pixel_unshuffle``).
        """
        grid = images.contiguous(memory_format=torch.channels_last)
        fine = None
        for place, layer in enumerate(self.trunk):
            grid = layer(grid)  # (B, F, rows, columns)
            fine = grid if place == self._joined_at else fine
        if fine is not None:
            grid = torch.cat((grid, nn.functional.pixel_unshuffle(fine, 2)), dim=1)
        return grid.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> Self:
        """Batch normalization keeps the statistics it was pretrained with: our batches are too small
        and too alike to replace them, and drifting statistics are a known way to lose a good encoder."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_pretrained(self, source: Path | None) -> None:
        """Start from weights trained for classification.

        Args:
            source: a ``.safetensors``, or a ``.pth`` of plain tensors, of the whole classifier or its
                ``features`` alone; None takes torchvision's published weights (fetched when absent).

        Raises:
            CheckpointError: no published weights, an unreadable file, or weights of another network.
        """
        state = _published_state(self.name) if source is None else _read_state(source)
        network = _classifier(self.name)
        try:
            result = network.load_state_dict(dict(state), strict=False)
        except RuntimeError as error:
            raise CheckpointError(f"{source} does not hold weights of {self.name}: {error}") from None
        wanted = {id(value) for value in _trunk(network).state_dict(keep_vars=True).values()}
        names = {name for name, value in network.state_dict(keep_vars=True).items() if id(value) in wanted}
        if missing := sorted(names & set(result.missing_keys)):
            raise CheckpointError(
                f"{source} does not hold weights of {self.name}: "
                f"{missing[0]} and {len(missing) - 1} others are missing."
            )
        self.trunk.load_state_dict(_trunk(network).state_dict())


def encoder_names() -> list[str]:
    """The names ``Encoder`` accepts."""
    published = list_models(module=torchvision.models)
    chains = [name for name in published if not name.startswith(_NOT_A_CONVOLUTIONAL_GRID)]
    return sorted([*chains, "efficientnet_v2_b0", "tiny_cnn"])


def _classifier(name: str) -> nn.Module:
    """The whole classification network of that name, with random weights."""
    if name == "efficientnet_v2_b0":
        return _efficientnet_v2_b0()
    if name == "tiny_cnn":
        return nn.ModuleDict({"features": _tiny_cnn()})
    if name not in encoder_names():
        raise CheckpointError(f"There is no encoder {name!r}; choose one of {', '.join(encoder_names())}.")
    network: nn.Module = get_model(name, weights=None)
    return network


def _trunk(network: nn.Module) -> nn.Sequential:
    """The part of a classifier up to its last feature grid."""
    children = dict(network.named_children())
    features = children.get("features")
    if isinstance(features, nn.Sequential):
        return features
    chain: list[nn.Module] = []
    for child in children.values():
        is_classifier = any(isinstance(module, nn.Linear) for module in child.modules())
        if is_classifier or isinstance(child, nn.AdaptiveAvgPool2d):
            break
        chain.append(child)
    return nn.Sequential(*chain)


def _probe(trunk: nn.Sequential, name: str, image_size: int) -> list[tuple[int, int, int]]:
    """Width, rows and columns of the grid that every layer makes of a square photo."""
    was_training = trunk.training
    trunk.eval()
    shapes = []
    grid = torch.zeros(1, 3, image_size, image_size)
    try:
        with torch.no_grad():
            for layer in trunk:
                grid = layer(grid)
                _, width, rows, columns = grid.shape
                shapes.append((width, rows, columns))
    except (RuntimeError, ValueError):
        raise CheckpointError(
            f"Photos of {image_size} x {image_size} pixels are too small for {name}."
        ) from None
    trunk.train(was_training)
    return shapes


def _last_of_twice_the_size(shapes: Sequence[tuple[int, int, int]], name: str) -> int:
    """The layer whose grid can be joined to the last one."""
    _, rows, columns = shapes[-1]
    twice = [place for place, shape in enumerate(shapes) if shape[1:] == (2 * rows, 2 * columns)]
    if not twice:
        raise CheckpointError(
            f"{name} has no grid of {2 * rows} x {2 * columns} cells to join to its last, of {rows} x "
            f"{columns}; choose another image_size, or the grid 'last'."
        )
    return twice[-1]


class _DownsamplingConv(nn.Conv2d):
    """A 3x3 convolution of stride 2 that pads two sides only, as TensorFlow pads even sizes."""

    padding_sides = (0, 1, 0, 1)  # pixels left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.padding_sides))


def _efficientnet_v2_b0() -> nn.Module:
    """EfficientNetV2-B0 (Tan and Le 2021) as Keras Applications trained it: 5.9 M parameters, stride 32.

    The published weights were trained with TensorFlow's padding, so the downsampling convolutions pad
    right and bottom; torchvision's own padding costs them accuracy. Each such convolution looks half a
    pixel of its input too far down and right, together 15.5 pixels of the photo: half a cell. The
    last one makes half of that alone, so it pads left and top instead, and what a cell sees is centred
    on the rectangle of the photo it is drawn on.
    """
    stages = [
        FusedMBConvConfig(1, 3, 1, 32, 16, 1),
        FusedMBConvConfig(4, 3, 2, 16, 32, 2),
        FusedMBConvConfig(4, 3, 2, 32, 48, 2),
        MBConvConfig(4, 3, 2, 48, 96, 3),
        MBConvConfig(6, 3, 1, 96, 112, 5),
        MBConvConfig(6, 3, 2, 112, 192, 8),
    ]
    network: nn.Module = EfficientNet(
        stages,
        dropout=0.2,
        stochastic_depth_prob=0.1,  # half of what ImageNet training used: fine-tuning is short
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
        last_channel=1280,
    )
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                setattr(module, name, _padded_like_tensorflow(child))
    *_, last = (module for module in network.modules() if isinstance(module, _DownsamplingConv))
    last.padding_sides = (1, 0, 1, 0)
    return network


def _padded_like_tensorflow(conv: nn.Conv2d) -> _DownsamplingConv:
    size = conv.kernel_size[0], conv.kernel_size[1]
    has_bias = conv.bias is not None
    return _DownsamplingConv(
        conv.in_channels, conv.out_channels, size, stride=2, groups=conv.groups, bias=has_bias
    )


def _tiny_cnn() -> nn.Module:
    """Stride 8, 64 channels, for pictures of about 64 pixels; for tests and for teaching.

    It is trained from nothing, beside a decoder that learns the language first and shuts out features that
    tell it nothing yet. So it keeps what differs between pictures from layer to layer (He et al. 2015), and
    has no biases, which do not differ, and no normalization over the picture, which would let every cell
    depend on what all the others see.
    """
    layers: list[nn.Module] = []
    # Even kernels on the way down keep what a cell sees centred on the cell; odd ones would shift it.
    for width_in, width_out, kernel, stride in (
        (3, 24, 4, 2),
        (24, 48, 4, 2),
        (48, 64, 4, 2),
        (64, 64, 3, 1),
    ):
        conv = nn.Conv2d(width_in, width_out, kernel, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers)


def _published_state(name: str) -> Mapping[str, Tensor]:
    if name in ("efficientnet_v2_b0", "tiny_cnn"):
        raise CheckpointError(f"torchvision publishes no weights for {name}; name a file of weights instead.")
    state: Mapping[str, Tensor] = get_model_weights(name).DEFAULT.get_state_dict(
        progress=True, check_hash=True
    )
    return state


def _read_state(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"The weights {path} cannot be read: {error}.") from None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"The weights {path} cannot be read: they are no table of named tensors.")
    # A file may hold the features alone, under their own names.
    if not any("." in key and not key.split(".")[0].isdigit() for key in state):
        state = {f"features.{key}": value for key, value in state.items()}
    return state
