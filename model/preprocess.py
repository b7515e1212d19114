"""Opening images, preprocessing them for the network, and mapping its grid back onto them.

HTTP, batch and training all open images here.
"""

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from torch import Tensor

from model.caption import Caption, Grid
from model.config import ModelConfig
from model.errors import (
    EmptyImageError,
    ImageError,
    ImageLimitError,
    UndecodableImageError,
    UnsupportedImageError,
)
from model.files import sha256_bytes

# "JPEG" opens MPO files (two images of a phone camera) too; naming "MPO" here breaks Pillow's detection.
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000
MIN_SIDE = 16  # pixels
MAX_SIDE = 20_000  # pixels

_BAND = 64  # rows

# What Pillow is known to raise for corrupt files of an accepted type.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, struct.error, EOFError, MemoryError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """The accepted image sizes."""

    max_pixels: int = MAX_PIXELS
    min_side: int = MIN_SIDE  # pixels
    max_side: int = MAX_SIDE  # pixels


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A decoded image file: the image, upright and RGB, and its original format."""

    image: Image.Image
    format: str
    sha256: str  # of the bytes it was decoded from, in hexadecimal

    @property
    def width(self) -> int:
        """Pixels of the upright image."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels of the upright image."""
        return self.image.height

    def as_record(
        self, image: str | dict[str, Any], captions: Sequence[Caption], *, attention: bool
    ) -> dict[str, Any]:
        """The JSON record of the photo and its captions.

        Args:
            image: its path, or over HTTP, where it has none, a description.
            captions: at least one, best first.
            attention: whether to include the weights of every word.
        """
        labels = captions[0].labels  # the same for all
        return {
            "image": image,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "labels": None if labels is None else [label.as_record() for label in labels],
            "captions": [caption.as_record(attention=attention) for caption in captions],
        }


def open_image(source: bytes | BinaryIO, limits: ImageLimits | None = None) -> Photo:
    """Decode an image file: upright by its EXIF orientation, 8-bit RGB, transparency on white.

    Of an animation the first frame is used. Metadata is dropped.

    Raises:
        EmptyImageError: the file is empty.
        UnsupportedImageError: the content is not one of ``ACCEPTED_FORMATS``.
        ImageLimitError: more pixels, or longer or shorter sides, than ``limits`` allow.
        UndecodableImageError: the image is corrupt.
    """
    data = source if isinstance(source, bytes) else source.read()
    if not data:
        raise EmptyImageError("The image is empty (0 bytes).")
    try:
        return _decode(data, limits or ImageLimits())
    except UnidentifiedImageError:
        raise UnsupportedImageError(
            "The file is not an image of an accepted type; use JPEG, PNG, WebP, GIF or BMP."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageLimitError("The image has far more pixels than are accepted; make it smaller.") from None
    except _DECODE_ERRORS as error:
        raise UndecodableImageError(f"The image is corrupt and cannot be decoded ({error}).") from None


def _decode(data: bytes, limits: ImageLimits) -> Photo:
    with Image.open(BytesIO(data), formats=ACCEPTED_FORMATS) as image:
        _check_limits(image.width, image.height, limits)
        name = "JPEG" if image.format == "MPO" else str(image.format)
        image.load()
        clean = _clean(image)
        with suppress(Exception):  # whatever a corrupt EXIF block raises, the pixels may be sound
            clean.getexif()[Base.Orientation] = image.getexif()[Base.Orientation]
    del image  # or three copies would be in memory during the rotation
    ImageOps.exif_transpose(clean, in_place=True)
    clean.getexif().clear()
    return Photo(image=clean, format=name, sha256=sha256_bytes(data))


def _clean(image: Image.Image) -> Image.Image:
    """The image as RGB without metadata.

    It is converted in bands, since each step of a conversion would hold another whole copy.
    """
    clean = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        clean.paste(_to_rgb(band), (0, top))
    return clean


def _check_limits(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageLimitError(
            f"The image is {width} x {height} = {width * height / 1e6:.0f} megapixels; "
            f"at most {limits.max_pixels / 1e6:.0f} are accepted."
        )
    if max(width, height) > limits.max_side or min(width, height) < limits.min_side:
        raise ImageLimitError(
            f"The image is {width} x {height} pixels; each side must have between "
            f"{limits.min_side} and {limits.max_side}."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, transparency on white."""
    if image.mode.startswith("I"):  # 16-bit grey: convert("RGB") would clip nearly all of it to white
        image = Image.fromarray((np.asarray(image, dtype=np.int32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def check_rgb(image: Image.Image) -> None:
    """Check the mode of an image that may not come from ``open_image``.

    Raises:
        ImageError: it is not RGB.
    """
    if image.mode != "RGB":
        raise ImageError(f"The image has mode {image.mode}, not RGB; open it with open_image.")


class Preprocess:
    """From upright RGB images to the network's input, and back for its grid.

    Images are squashed to a square whatever their aspect ratio, as the published copies of the training
    photos are. So the grid covers the whole image, and a map is stretched back to its aspect ratio.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._size = (config.image_size, config.image_size)
        self._mean = torch.tensor(config.mean).view(3, 1, 1)
        self._std = torch.tensor(config.std).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """An upright RGB image of any size as the network's input, (3, S, S), float32.

        Raises:
            ImageError: the image is not RGB.
        """
        check_rgb(image)
        pixels = torch.from_numpy(np.array(self.squash(image))).permute(2, 0, 1)  # (3, S, S), uint8
        return (pixels.float() / 255 - self._mean) / self._std

    def squash(self, image: Image.Image) -> Image.Image:
        """The image resized to the network's square, not yet normalized."""
        return image if image.size == self._size else image.resize(self._size, Image.Resampling.BICUBIC)

    @staticmethod
    def grid(rows: int, columns: int) -> Grid:
        """The part of an upright image that a ``rows`` x ``columns`` grid of annotations covers."""
        return Grid(rows=rows, columns=columns, box=(0.0, 0.0, 1.0, 1.0))
