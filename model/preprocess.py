"""From the bytes of a picture to the tensor a network is fed, and back to where its grid lies.

Everything that opens a picture (HTTP, batch, training) opens it here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from model.caption import Grid
from model.config import ModelConfig
from model.errors import (
    EmptyImageError,
    ImageError,
    ImageLimitError,
    UndecodableImageError,
    UnsupportedImageError,
)
from model.files import sha256_bytes

# "JPEG" opens MPO files (two-picture phone photos) too; naming "MPO" here breaks Pillow's search.
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 50_000_000
MIN_SIDE = 16  # pixels
MAX_SIDE = 20_000  # pixels

_BAND = 64  # rows
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow is known to raise on damaged files of an accepted type.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, struct.error, EOFError, MemoryError, OverflowError)


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """The sizes of picture that are accepted."""

    max_pixels: int = MAX_PIXELS
    min_side: int = MIN_SIDE  # pixels
    max_side: int = MAX_SIDE  # pixels


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A decoded picture: upright, RGB, with the name of the format it came in."""

    image: Image.Image
    format: str
    sha256: str  # of the bytes it was decoded from, in hexadecimal

    @property
    def width(self) -> int:
        """Pixels, after turning the picture upright."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels, after turning the picture upright."""
        return self.image.height


def open_image(source: bytes | BinaryIO, limits: ImageLimits | None = None) -> Photo:
    """The picture in ``source``, upright by its EXIF orientation, as 8-bit RGB on white.

    Of an animated picture the first frame is taken. Nothing of the file but its pixels is kept.

    Raises:
        EmptyImageError: there are no bytes.
        UnsupportedImageError: the content is not one of ``ACCEPTED_FORMATS``.
        ImageLimitError: more pixels, or longer or shorter sides, than ``limits`` allow.
        UndecodableImageError: the content is damaged.
    """
    data = source if isinstance(source, bytes) else source.read()
    if not data:
        raise EmptyImageError("The picture is empty (0 bytes).")
    try:
        return _decode(data, limits or ImageLimits())
    except UnidentifiedImageError:
        raise UnsupportedImageError(
            "This is not a picture of an accepted type; send JPEG, PNG, WebP, GIF or BMP."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageLimitError("The picture has far more pixels than are accepted.") from None
    except _DECODE_ERRORS as error:
        raise UndecodableImageError(f"The picture is damaged and cannot be decoded ({error}).") from None


def _decode(data: bytes, limits: ImageLimits) -> Photo:
    with Image.open(BytesIO(data), formats=ACCEPTED_FORMATS) as image:
        _check_limits(image.width, image.height, limits)
        name = "JPEG" if image.format == "MPO" else str(image.format)
        image.load()
        clean, turn = _clean(image), _turn(image)
    del image  # or there would be three of it in memory while it is turned
    upright = clean if turn is None else clean.transpose(turn)
    return Photo(image=upright, format=name, sha256=sha256_bytes(data))


def _clean(image: Image.Image) -> Image.Image:
    """The picture as RGB on a new picture, which carries no metadata of the photo.

    It is converted a band at a time: each step of a conversion would hold another whole picture.
    """
    clean = Image.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        clean.paste(_to_rgb(band), (0, top))
    return clean


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright, by EXIF; nothing else of EXIF is read, for it is often malformed."""
    try:
        return _TURNS.get(image.getexif()[_EXIF_ORIENTATION])
    except Exception:  # whatever a damaged EXIF block provokes, the pixels are all we want
        return None


def _check_limits(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageLimitError(
            f"The picture is {width} x {height} = {width * height / 1e6:.0f} megapixels; "
            f"at most {limits.max_pixels / 1e6:.0f} are accepted."
        )
    if max(width, height) > limits.max_side or min(width, height) < limits.min_side:
        raise ImageLimitError(
            f"The picture is {width} x {height} pixels; every side must have between "
            f"{limits.min_side} and {limits.max_side}."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparent parts become white, as on a page."""
    if image.mode.startswith("I"):  # 16-bit grey: convert("RGB") would clip nearly all of it to white
        image = Image.fromarray((np.asarray(image, dtype=np.int32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def check_rgb(image: Image.Image) -> None:
    """Refuse a picture that did not come through ``open_image``.

    Raises:
        ImageError: its mode is not RGB.
    """
    if image.mode != "RGB":
        raise ImageError(f"The picture has mode {image.mode}, not RGB; open it with open_image.")


class Preprocess:
    """From upright RGB pictures to the network's input, and the inverse of that for its grid.

    Pictures are squashed to a square, whatever their shape: the published copies of the training
    photos are squashed too, and a network should see what it was trained on. So the grid
    covers the whole photo, and a map is stretched back to the photo's own shape.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._size = (config.image_size, config.image_size)
        self._mean = torch.tensor(config.mean).view(3, 1, 1)
        self._std = torch.tensor(config.std).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """An upright RGB picture of any size as the network's input, (3, S, S), float32.

        Raises:
            ImageError: the picture is not RGB.
        """
        check_rgb(image)
        pixels = torch.from_numpy(np.array(self.squash(image))).permute(2, 0, 1)  # (3, S, S), uint8
        return (pixels.float() / 255 - self._mean) / self._std

    def squash(self, image: Image.Image) -> Image.Image:
        """The picture as the square the network sees, still to be normalized."""
        return image if image.size == self._size else image.resize(self._size, Image.Resampling.BICUBIC)

    @staticmethod
    def grid(rows: int, columns: int) -> Grid:
        """Where a ``rows`` x ``columns`` grid of annotations lies on the upright photo."""
        return Grid(rows=rows, columns=columns, box=(0.0, 0.0, 1.0, 1.0))
