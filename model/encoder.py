"""The convolutional encoder: from an image to the feature grid that the decoder attends to.

Any torchvision classification CNN can be used, by its torchvision name, as can ``efficientnet_v2_b0``, which
torchvision has the classes for but no name, and ``tiny_cnn``, four layers that learn a world of simple shapes
from scratch in seconds.
"""

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.errors import CheckpointError

# Families without a feature grid or, the last two, with branches that are not a chain of layers.
_NOT_A_CONVOLUTIONAL_GRID = ("vit_", "swin", "maxvit", "googlenet", "inception")


class Encoder(nn.Module):
    """A CNN without its classifier: the feature grid of a square image, row by row."""

    def __init__(self, name: str, image_size: int, grid: str = "last") -> None:
        """Weights are random.

        Args:
            name: see ``encoder_names()``.
            image_size: S, pixels a side.
            grid: "last", the last feature grid; or "joined", that joined with the last one of twice its rows
                and columns, whose cells have smaller receptive fields.

        Raises:
            CheckpointError: there is no encoder of that name, images are too small for it, or it has no
                grid of twice the size.
        """
        super().__init__()
        self.name = name
        self.trunk = _trunk(_classifier(name))
        # Convolutions on a CPU are about 1.5 times as fast in this layout.
        self.to(memory_format=torch.channels_last)
        shapes = _probe(self.trunk, name, image_size)
        self.feature_dim, self.rows, self.columns = shapes[-1]
        self.fine_dim = 0  # features of a cell of the finer grid
        self._joined_at = -1  # the layer of the trunk that outputs it
        if grid == "joined":
            self._joined_at = _last_of_twice_the_size(shapes, name)
            self.fine_dim, self.rows, self.columns = shapes[self._joined_at]

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Of the features of one image, as ``forward`` returns them."""
        cells = self.rows * self.columns // (4 if self.fine_dim else 1)
        return cells, self.feature_dim + 4 * self.fine_dim

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (B, 3, S, S) to the features of the cells of the last grid, row by row.

        Returns:
            (B, rows * columns, F). With a joined grid (B, rows / 2 * columns / 2, F + 4 F'): each cell of the
            last grid followed by the four cells of the finer one that it covers (``pixel_unshuffle``).
        """
        grid = images.contiguous(memory_format=torch.channels_last)
        fine = None
        for index, layer in enumerate(self.trunk):
            grid = layer(grid)  # (B, F, rows, columns)
            fine = grid if index == self._joined_at else fine
        if fine is not None:
            grid = torch.cat((grid, nn.functional.pixel_unshuffle(fine, 2)), dim=1)
        return grid.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> Self:
        """Batch normalization stays in evaluation mode: our batches are too small and too similar to replace
        its pretrained statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def load_pretrained(self, source: Path | None) -> None:
        """Load weights pretrained for classification.

        Args:
            source: a ``.safetensors``, or a ``.pth`` of plain tensors, of the whole classifier or its
                ``features`` alone; None: torchvision's published weights (downloaded if absent).

        Raises:
            CheckpointError: no published weights, a failed download, an unreadable file, or weights of
                another network.
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
    import torchvision  # takes as long as torch itself: only where it is used
    from torchvision.models import list_models

    published = list_models(module=torchvision.models)
    chains = [name for name in published if not name.startswith(_NOT_A_CONVOLUTIONAL_GRID)]
    return sorted([*chains, "efficientnet_v2_b0", "tiny_cnn"])


def _classifier(name: str) -> nn.Module:
    if name == "efficientnet_v2_b0":
        return _efficientnet_v2_b0()
    if name == "tiny_cnn":
        return nn.ModuleDict({"features": _tiny_cnn()})
    if name not in encoder_names():
        raise CheckpointError(f"There is no encoder {name!r}; choose one of {', '.join(encoder_names())}.")
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None)
    return network


def _trunk(network: nn.Module) -> nn.Sequential:
    """The layers of a classifier up to its last feature grid."""
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential):
        return features
    chain: list[nn.Module] = []
    for child in network.children():
        is_classifier = any(isinstance(module, nn.Linear) for module in child.modules())
        if is_classifier or isinstance(child, nn.AdaptiveAvgPool2d):
            break
        chain.append(child)
    return nn.Sequential(*chain)


def _probe(trunk: nn.Sequential, name: str, image_size: int) -> list[tuple[int, int, int]]:
    """Channels, rows and columns of each layer's output for a square image."""
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
            f"Images of {image_size} x {image_size} pixels are too small for {name}; set a larger image_size."
        ) from None
    trunk.train(was_training)
    return shapes


def _last_of_twice_the_size(shapes: Sequence[tuple[int, int, int]], name: str) -> int:
    """The layer whose grid can be joined to the last one."""
    _, rows, columns = shapes[-1]
    twice = [index for index, shape in enumerate(shapes) if shape[1:] == (2 * rows, 2 * columns)]
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
    right and bottom; torchvision's padding costs accuracy. Each such convolution shifts the receptive field
    by half a pixel of its input down and right, together 15.5 pixels of the image: half a cell. The last one
    alone makes half of that, so it pads left and top instead, which centres receptive fields on cells.
    """
    from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

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
                width_in, width_out = child.in_channels, child.out_channels
                padded = _DownsamplingConv(width_in, width_out, 3, stride=2, groups=child.groups, bias=False)
                setattr(module, name, padded)
    *_, last = (module for module in network.modules() if isinstance(module, _DownsamplingConv))
    last.padding_sides = (1, 0, 1, 0)
    return network


def _tiny_cnn() -> nn.Module:
    """Stride 8, 64 channels, for images of about 64 pixels; for tests and for teaching.

    It is trained from scratch, with a decoder that learns the language first and ignores features that are
    uninformative at first. So its initialization preserves the variance between images (He et al. 2015), and
    it has neither biases nor normalization over the image, which would make each cell depend on all others.
    """
    layers: list[nn.Module] = []
    # Even kernels with stride 2 keep receptive fields centred on their cells; odd ones would shift them.
    shapes = ((3, 24, 4, 2), (24, 48, 4, 2), (48, 64, 4, 2), (64, 64, 3, 1))
    for width_in, width_out, kernel, stride in shapes:
        conv = nn.Conv2d(width_in, width_out, kernel, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers)


def _published_state(name: str) -> Mapping[str, Tensor]:
    if name in ("efficientnet_v2_b0", "tiny_cnn"):
        raise CheckpointError(f"torchvision publishes no weights for {name}; give a file of weights.")
    from torchvision.models import get_model_weights

    try:
        state: Mapping[str, Tensor] = get_model_weights(name).DEFAULT.get_state_dict(check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: cut off, so that the hash is wrong
        reason = getattr(error, "reason", error)  # a URLError puts it in angle brackets
        raise CheckpointError(
            f"The published weights of {name} cannot be downloaded ({reason}); download them elsewhere and "
            "pass --encoder-weights FILE, or train without them: --encoder-weights none."
        ) from None
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
        raise CheckpointError(
            f"The weights {path} cannot be read: they are not a dictionary of named tensors."
        )
    # A file may contain the features alone, under their own names.
    if not any("." in key and not key.split(".")[0].isdigit() for key in state):
        state = {f"features.{key}": value for key, value in state.items()}
    return state
