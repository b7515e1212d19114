"""Overlays: the attention map of a word as a heat map over the image; and encoding of images.

The contact sheet and the animation (``model.drawing.contact_sheet``) use the same heat maps.
"""

import base64
from collections.abc import Sequence
from functools import cache, lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.caption import Caption, Grid, Word
from model.errors import OptionsError
from model.preprocess import check_rgb

Floats = NDArray[np.float32]

OPACITY = 0.7  # of the heat colour at full heat; more hides the object beneath
WORD_SIDE = 768  # pixels, longest side of the overlay of one word
SMALL_SIDE = 320  # the same if every word has one: drawing must take little time compared with captioning
JPEG_QUALITY = 82

# Full heat is the maximum of the map, but at least this many times the uniform weight 1 / L: a uniform map
# must appear uniform, neither hot all over nor with its noise amplified.
FULL_HEAT = 4.0
# In cells: the sharpest interpolation that does not show a 7 x 7 grid as tiles.
BLEND_SIGMA = 0.42
# Saturation and brightness of the image where there is no attention, relative to the original.
MUTED_COLOUR = 0.25
MUTED_LIGHT = 0.55

# Inferno (van der Walt and Smith, 2015, CC0) in steps of 1/9: perceptually uniform, also for the
# colour-blind. Its last step, to a pale yellow, is left out: over a photo it turns green.
HEAT_COLOURS = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d"
# The outline of the one cell used by hard attention: two dark lines with a light one between them, visible on
# any image. The width of each is a share of the cell's shorter side, at least a pixel.
OUTLINE = 0.04
OUTLINE_COLOURS = ("black", "white")


def draw_overlay(
    image: Image.Image,
    attention: Sequence[Sequence[float]],
    grid: Grid,
    *,
    opacity: float = OPACITY,
    chosen: tuple[int, int] | None = None,
) -> Image.Image:
    """The image with the heat map of one word, as a new RGB image of the same size.

    Without attention the image is dim and nearly grey; with attention its colours return under the heat. Full
    heat is the maximum of this map, so two maps cannot be compared by brightness, except that a map whose
    maximum is below ``FULL_HEAT`` times the uniform weight is darker in proportion.

    Args:
        image: upright, RGB, any size; not modified.
        attention: rows x columns, never negative, sums to 1. Cell (r, c) covers row r and column c of
            ``grid.rows`` x ``grid.columns`` equal rectangles of ``grid.box``.
        opacity: of the heat colour at full heat, 0 to 1.
        chosen: row and column of the cell to outline.

    Raises:
        OptionsError: ``opacity`` is outside 0 to 1. ImageError: the image is not RGB.
    """
    return Canvas(image, grid).draw(attention, opacity=opacity, chosen=chosen)


class Canvas:
    """An image prepared for the heat maps of its words, with everything they share."""

    def __init__(self, image: Image.Image, grid: Grid) -> None:
        """``image``: upright, RGB, any size, not modified; ``grid``: the part of it that the maps cover.

        Raises:
            ImageError: the image is not RGB.
        """
        check_rgb(image)
        self._image, self._grid = image, grid
        self._muted = _muted(image)
        self._across = _blend(image.width, grid.columns, grid.box[0], grid.box[2])  # (width, columns)
        self._down = _blend(image.height, grid.rows, grid.box[1], grid.box[3])  # (height, rows)

    def draw(
        self,
        attention: Sequence[Sequence[float]],
        *,
        opacity: float = OPACITY,
        chosen: tuple[int, int] | None = None,
    ) -> Image.Image:
        """One heat map; see ``draw_overlay``.

        Raises:
            OptionsError: ``opacity`` is outside 0 to 1.
        """
        if not 0 <= opacity <= 1:
            raise OptionsError(f"The opacity is {opacity}; it must be between 0 and 1.")
        heat = self._levels(attention)
        light, clear = _masks(opacity)
        lit = Image.composite(self._image, self._muted, heat.point(light))
        colours = heat.copy()
        colours.putpalette(_heat_palette())
        # Over the colours, not under them: Pillow's result inherits the metadata of its second image.
        drawn = Image.composite(lit, colours.convert("RGB"), heat.point(clear))
        if chosen is not None:
            _outline(drawn, chosen, self._grid)
        return drawn

    def draw_word(self, word: Word) -> Image.Image:
        """The heat map of a word, with the cell of hard attention outlined.

        Raises:
            OptionsError: the word has no map.
        """
        if word.attention is None:
            raise OptionsError(f"The word {word.word!r} has no map; the model has no attention.")
        return self.draw(word.attention, chosen=word.chosen)

    def _levels(self, attention: Sequence[Sequence[float]]) -> Image.Image:
        """The heat of every pixel, 0 to 255; 0 outside the grid."""
        weights = np.asarray(attention, dtype=np.float32)  # (rows, columns)
        assert weights.shape == (self._grid.rows, self._grid.columns), weights.shape
        assert weights.min() >= 0, weights.min()
        assert abs(weights.sum() - 1) < 0.01, weights.sum()
        heat = self._across @ (self._down @ weights).T  # (width, height), the faster order
        heat *= 255 / max(float(heat.max()), FULL_HEAT / weights.size)
        return Image.fromarray((heat + np.float32(0.5)).astype(np.uint8).T)


def word_overlay(image: Image.Image, caption: Caption, index: int) -> Image.Image:
    """The overlay of word ``index``, counted from 0, with its longest side at most ``WORD_SIDE`` pixels.

    Raises:
        OptionsError: the caption has no such word, or the word has no map.
    """
    count = len(caption.words)
    if not 0 <= index < count:
        right = f"choose 0 to {count - 1}" if count else "there is nothing to draw"
        raise OptionsError(f"The caption has no word {index}, only {count} words; {right}.")
    return Canvas(bounded(image, WORD_SIDE), caption.grid).draw_word(caption.words[index])


def word_overlays(image: Image.Image, caption: Caption) -> list[Image.Image | None]:
    """The overlay of every word, at most ``SMALL_SIDE`` pixels long; None for a word without a map."""
    canvas = Canvas(bounded(image, SMALL_SIDE), caption.grid)
    return [None if word.attention is None else canvas.draw_word(word) for word in caption.words]


def bounded(image: Image.Image, side: int) -> Image.Image:
    """The image, downscaled if its longest side exceeds ``side`` pixels."""
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # As sharp as bicubic, at half the cost.
    return image.resize(size, Image.Resampling.HAMMING, reducing_gap=3.0)


def encode_png(image: Image.Image) -> bytes:
    """An RGB image as PNG, without metadata."""
    return _encode(image, "PNG")


def encode_jpeg(image: Image.Image) -> bytes:
    """An RGB image as JPEG, without metadata."""
    return _encode(image, "JPEG", quality=JPEG_QUALITY)


def data_url(image: Image.Image) -> str:
    """An RGB image as a ``data:image/jpeg;base64,...`` URL."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image)).decode("ascii")


def _blend(pixels: int, cells: int, start: float, end: float) -> Floats:
    """Interpolation weights of the cells for each pixel along one side, (pixels, cells); 0 outside the grid.

    The weights of a pixel inside the grid sum to 1, also at the border, so a uniform map stays exactly
    uniform. ``start`` and ``end``: of the grid, as fractions of the side.
    """
    assert 0 <= start < end <= 1, (start, end)
    centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels  # half-pixel centres
    position = (centres - start) / (end - start) * cells  # in cells; cell c is centred on c + 0.5
    distance = position[:, None] - (np.arange(cells, dtype=np.float32) + 0.5)  # (pixels, cells)
    nearest = np.abs(distance).min(axis=1, keepdims=True)  # keeps the largest exponent at 0 far outside
    shares: Floats = np.exp((nearest**2 - distance**2) / (2 * BLEND_SIGMA**2))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[(position < 0) | (position >= cells)] = 0
    return shares


def _outline(image: Image.Image, cell: tuple[int, int], grid: Grid) -> None:
    """Outline a cell, in place."""
    top, bottom = _cell_edges(cell[0], grid.rows, grid.box[1], grid.box[3], image.height)
    left, right = _cell_edges(cell[1], grid.columns, grid.box[0], grid.box[2], image.width)
    width = max(1, round(OUTLINE * min(right - left, bottom - top)))
    pen = ImageDraw.Draw(image)
    dark, light = OUTLINE_COLOURS
    for colour, outside, thick in ((dark, width, 3 * width), (light, 0, width)):  # pixels
        corners = (left - outside, top - outside, right - 1 + outside, bottom - 1 + outside)
        pen.rectangle(corners, outline=colour, width=thick)


def _cell_edges(cell: int, cells: int, start: float, end: float, pixels: int) -> tuple[int, int]:
    """First pixel of a cell along one side, and the first after it; at least one pixel apart."""
    first, after = (round((start + (end - start) * edge / cells) * pixels) for edge in (cell, cell + 1))
    return first, max(after, first + 1)


@lru_cache(maxsize=64)
def _masks(opacity: float) -> tuple[list[int], list[int]]:
    """For each level of heat, 0 to 255: the share of original colour, and the share of image over heat."""
    levels = [level / 255 for level in range(256)]
    lit = [round(255 * (1 - (1 - heat) ** 2)) for heat in levels]
    return lit, [round(255 * (1 - heat * opacity)) for heat in levels]


@cache
def _heat_palette() -> bytes:
    """Red, green and blue for each level of heat."""
    steps = np.frombuffer(bytes.fromhex(HEAT_COLOURS), dtype=np.uint8).reshape(-1, 3)
    levels = np.linspace(0, len(steps) - 1, 256)
    channels = [np.interp(levels, np.arange(len(steps)), channel) for channel in steps.T]
    return np.rint(channels).astype(np.uint8).T.tobytes()


def _muted(image: Image.Image) -> Image.Image:
    grey = Image.merge("RGB", [image.convert("L")] * 3)
    return Image.blend(grey, image, MUTED_COLOUR).point([round(i * MUTED_LIGHT) for i in range(256)] * 3)


def _encode(image: Image.Image, name: str, **options: int) -> bytes:
    clean = Image.new(image.mode, image.size)  # Pillow's writers copy comments and profiles from the image
    clean.paste(image)
    stream = BytesIO()
    clean.save(stream, name, **options)
    return stream.getvalue()
