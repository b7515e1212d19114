"""Pictures of where a caption looked: one word, a contact sheet, an animated walk through the words.

Every picture is drawn by ``draw_overlay``. This file knows nothing of networks, files or HTTP.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.errors import OptionsError
from model.preprocess import check_rgb
from model.record import Caption, Grid

Colour = tuple[int, int, int]
Floats = NDArray[np.float32]

OPACITY = 0.7  # of the heat colour where the heat is full; more hides what was looked at
WORD_SIDE = 768  # pixels, longest side of the overlay of one word
JPEG_QUALITY = 88

# Full heat is a map's own maximum, or this many times the even share 1 / L if the maximum is less: a word
# that looked everywhere alike must look so, neither hot all over nor with its noise blown up.
FULL_HEAT = 4.0
# In cells: the sharpest blend of neighbouring cells in which a 7 x 7 grid does not show as tiles.
BLEND_SIGMA = 0.42
# What stays of the colour and of the light of the photograph where it got no attention.
MUTED_COLOUR = 0.25
MUTED_LIGHT = 0.55

# Inferno (van der Walt and Smith, 2015, CC0) at steps of 1/9: its lightness rises evenly, also for the
# colour-blind. Its last step, to a pale yellow, is left out: over a photograph it turns green.
HEAT_COLOURS = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d"
PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 32, 36)
FAINT_INK: Colour = (176, 176, 180)
ACCENT_INK: Colour = (207, 50, 40)

# The contact sheet, in pixels.
SHEET_SIDE = 1640  # the panels fill no more of either side
PANEL_AREA = 320 * 240  # of the largest panel: an area, so that panoramas get wide panels
MIN_PANEL_WIDTH = 72  # width that leaves room for a title above a sliver of a photograph
GAP = 12
TITLE_SIZES = (20, 18, 16, 14, 12)  # a long title shrinks before it loses letters
TITLE_HEIGHT = 34
CAPTION_SIZE = 26
WALK_SIDE = 480  # pixels, longest side of the photograph in the animation
WALK_TEXT_SIZE, WALK_MIN_WIDTH = 22, 320  # pixels: a caption under a narrow photograph can still be read
WALK_MILLISECONDS = 800  # a word
WALK_REST_MILLISECONDS = 1600  # the photograph, which starts the walk over


def draw_overlay(
    image: Image.Image, attention: Sequence[Sequence[float]], grid: Grid, *, opacity: float = OPACITY
) -> Image.Image:
    """The photograph with the heat map of one word, as a new RGB picture of the same size.

    Where there is no attention the photograph is dim and nearly grey; with attention its colours return
    under the heat. Full heat is the maximum of this map, so two maps cannot be compared by brightness,
    except that a map whose maximum is below ``FULL_HEAT`` times the even share stays dark in proportion.

    Args:
        image: upright, RGB, any size; it is not changed.
        attention: rows x columns, never negative, sums to 1. Cell (r, c) lies on row r and column c of
            ``grid.rows`` x ``grid.columns`` equal rectangles of ``grid.box``.
        opacity: of the heat colour at full heat, 0 to 1.

    Raises:
        OptionsError: ``opacity`` is outside 0 to 1. ImageError: the picture is not RGB.
    """
    if not 0 <= opacity <= 1:
        raise OptionsError(f"The opacity is {opacity}; it must be between 0 and 1.")
    check_rgb(image)
    heat = _heat(attention, grid, image.size)  # (height, width)
    lit = Image.composite(image, _muted(image), _mask(1 - (1 - heat) ** 2))
    colours = _mask(heat)
    colours.putpalette(_heat_palette())
    # Over the colours, not under them: Pillow's result inherits the metadata of its second picture.
    return Image.composite(lit, colours.convert("RGB"), _mask(1 - heat * np.float32(opacity)))


def word_overlay(image: Image.Image, caption: Caption, index: int) -> Image.Image:
    """The overlay of word ``index``, counted from 0, with its longest side at most ``WORD_SIDE`` pixels.

    Raises:
        OptionsError: the caption has no such word.
    """
    count = len(caption.words)
    if not 0 <= index < count:
        right = f"give 0 to {count - 1}" if count else "there is nothing to draw"
        raise OptionsError(f"Word {index} is not in this caption of {count} words; {right}.")
    return draw_overlay(_bounded(image, WORD_SIDE), caption.words[index].attention, caption.grid)


def contact_sheet(image: Image.Image, caption: Caption) -> Image.Image:
    """The caption, the photograph, and the overlay of every word in reading order, on white paper.

    After figure 2 of Xu et al. (2015). The photograph is upright RGB of any size, and is not changed.
    """
    columns, size = _arrangement(image.size, 1 + len(caption.words))
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    overlays = [draw_overlay(small, word.attention, caption.grid) for word in caption.words]
    titles = ["", *(word.word for word in caption.words)]
    panels = [_titled(picture, title) for picture, title in zip([small, *overlays], titles, strict=True)]
    width, height = panels[0].size
    text = _Text(caption.text.split(), columns * (width + GAP) - GAP, CAPTION_SIZE)
    top = GAP + text.height
    bottom = top + math.ceil(len(panels) / columns) * height + GAP
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, bottom), PAPER)
    text.draw(sheet, (GAP, GAP), [INK] * len(text.words))
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        sheet.paste(panel, (GAP + column * (width + GAP), top + row * height))
    return sheet


def walk_gif(image: Image.Image, caption: Caption) -> bytes:
    """An endless GIF: the photograph, then the overlay of every word, over the caption written so far.

    The photograph, upright RGB of any size, is shown at most ``WALK_SIDE`` pixels long and is not changed.
    """
    small = _bounded(image, WALK_SIDE)
    overlays = (draw_overlay(small, word.attention, caption.grid) for word in caption.words)
    words = [word.word for word in caption.words]
    frames = [_walk_frame(picture, words, place) for place, picture in enumerate([small, *overlays])]
    palette = _shared_palette(frames)
    first, *others = (frame.quantize(palette=palette) for frame in frames)
    durations = [WALK_REST_MILLISECONDS, *[WALK_MILLISECONDS] * len(words)]
    stream = BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return stream.getvalue()


def encode_png(image: Image.Image) -> bytes:
    """The pixels of an RGB picture as PNG, without any metadata."""
    return _encode(image, "PNG")


def encode_jpeg(image: Image.Image) -> bytes:
    """The pixels of an RGB picture as JPEG, without any metadata."""
    return _encode(image, "JPEG", quality=JPEG_QUALITY)


def data_url(image: Image.Image) -> str:
    """An RGB picture as a ``data:image/jpeg;base64,...`` URL."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image)).decode("ascii")


def _heat(attention: Sequence[Sequence[float]], grid: Grid, size: tuple[int, int]) -> Floats:
    """The heat of every pixel of a picture of ``size``, 0 to 1, 0 outside the grid, (height, width)."""
    weights = np.asarray(attention, dtype=np.float32)  # (rows, columns)
    assert weights.shape == (grid.rows, grid.columns), weights.shape
    assert weights.min() >= 0, weights.min()
    assert abs(weights.sum() - 1) < 0.01, weights.sum()
    across = _blend(size[0], grid.columns, grid.box[0], grid.box[2])  # (width, columns)
    down = _blend(size[1], grid.rows, grid.box[1], grid.box[3])  # (height, rows)
    heat: Floats = (down @ weights @ across.T).astype(np.float32)  # (height, width)
    heat /= max(float(heat.max()), FULL_HEAT / weights.size)
    return heat


def _blend(pixels: int, cells: int, start: float, end: float) -> Floats:
    """How much of every cell each pixel shows along one side, (pixels, cells); 0 outside the grid.

    The shares of a pixel inside the grid sum to 1, at the border as in the middle, so that an even map
    stays exactly even. ``start`` and ``end`` are the grid's as fractions of the side.
    """
    assert 0 <= start < end <= 1, (start, end)
    centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels  # half-pixel centres
    position = (centres - start) / (end - start) * cells  # in cells; cell c is centred on c + 0.5
    distance = position[:, None] - (np.arange(cells, dtype=np.float32) + 0.5)  # (pixels, cells)
    nearest = np.abs(distance).min(axis=1, keepdims=True)  # keeps the largest exponent 0 far outside
    shares: Floats = np.exp((nearest**2 - distance**2) / (2 * BLEND_SIGMA**2))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[(position < 0) | (position >= cells)] = 0
    return shares


def _mask(shares: Floats) -> Image.Image:
    return Image.fromarray(np.rint(shares * 255).astype(np.uint8))


@cache
def _heat_palette() -> bytes:
    """Red, green and blue of the 256 levels of heat."""
    steps = np.frombuffer(bytes.fromhex(HEAT_COLOURS), dtype=np.uint8).reshape(-1, 3)
    levels = np.linspace(0, len(steps) - 1, 256)
    channels = [np.interp(levels, np.arange(len(steps)), channel) for channel in steps.T]
    return np.rint(channels).astype(np.uint8).T.tobytes()


def _muted(image: Image.Image) -> Image.Image:
    """The photograph dim and nearly grey."""
    grey = Image.merge("RGB", [image.convert("L")] * 3)
    return Image.blend(grey, image, MUTED_COLOUR).point([round(i * MUTED_LIGHT) for i in range(256)] * 3)


def _bounded(image: Image.Image, side: int) -> Image.Image:
    """The picture made smaller, if needed, until its longest side is at most ``side`` pixels."""
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _arrangement(size: tuple[int, int], panels: int) -> tuple[int, tuple[int, int]]:
    """How many columns and what size of panel make the panels of a photograph of ``size`` largest.

    Among equals the fewest empty places win, then the most columns.
    """

    def scale(columns: int) -> float:
        room_across = (SHEET_SIDE - GAP) / columns - GAP
        room_down = max(1.0, SHEET_SIDE / math.ceil(panels / columns) - TITLE_HEIGHT)
        return min(math.sqrt(PANEL_AREA / (size[0] * size[1])), room_across / size[0], room_down / size[1])

    most = min(panels, SHEET_SIDE // (MIN_PANEL_WIDTH + GAP))
    columns = max(range(1, most + 1), key=lambda count: (scale(count), -(-panels % count), count))
    return columns, (max(1, int(size[0] * scale(columns))), max(1, int(size[1] * scale(columns))))


def _titled(picture: Image.Image, title: str) -> Image.Image:
    """A panel of the sheet: the picture under its title."""
    width = max(picture.width, MIN_PANEL_WIDTH)
    fonts = [ImageFont.load_default(size=size) for size in TITLE_SIZES]
    font = next((font for font in fonts if font.getlength(title) <= width), fonts[-1])
    panel = Image.new("RGB", (width, TITLE_HEIGHT + picture.height), PAPER)
    panel.paste(picture, ((width - picture.width) // 2, TITLE_HEIGHT))
    baseline = (width / 2, TITLE_HEIGHT - 8)
    ImageDraw.Draw(panel).text(baseline, _shortened(title, font, width), INK, font, anchor="ms")
    return panel


class _Text:
    """Words broken into lines of at most ``width`` pixels, at ``size`` pixels."""

    def __init__(self, words: Sequence[str], width: int, size: int) -> None:
        self._font = ImageFont.load_default(size=size)
        self._line_height = round(size * 1.35)  # pixels
        self.words = [_shortened(word, self._font, width) for word in words]
        self._places: list[tuple[float, int]] = []  # left and line of every word
        space, left, line = self._font.getlength(" "), 0.0, 0
        for word in self.words:
            length = self._font.getlength(word)
            if left and left + length > width:
                left, line = 0.0, line + 1
            self._places.append((left, line))
            left += length + space
        self.height = (line + 1) * self._line_height if words else 0

    def draw(self, picture: Image.Image, corner: tuple[int, int], inks: Sequence[Colour]) -> None:
        """The words with their top left at ``corner``, every one in its ink."""
        pen = ImageDraw.Draw(picture)
        for word, (left, line), ink in zip(self.words, self._places, inks, strict=True):
            pen.text((corner[0] + left, corner[1] + line * self._line_height), word, ink, self._font)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text, with an ellipsis for its end where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept and font.getlength(text[:kept] + "…") > width:
        kept -= 1
    return text[:kept] + "…"


def _walk_frame(picture: Image.Image, words: Sequence[str], place: int) -> Image.Image:
    """The picture over the caption, with ``place`` words written, the last of them in the accent."""
    width = max(picture.width, WALK_MIN_WIDTH)
    text = _Text(words, width - 2 * GAP, WALK_TEXT_SIZE)
    frame = Image.new("RGB", (width, picture.height + text.height + 2 * GAP), PAPER)
    frame.paste(picture, ((width - picture.width) // 2, 0))
    inks = [INK if i < place - 1 else ACCENT_INK if i == place - 1 else FAINT_INK for i in range(len(words))]
    text.draw(frame, (GAP, picture.height + GAP), inks)
    return frame


def _shared_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One palette of 256 colours for all frames: a palette for each makes the photograph flicker."""
    width, height = (max(1, side // 3) for side in frames[0].size)  # a ninth of the pixels is enough
    strip = Image.new("RGB", (width, height * len(frames)))
    for place, frame in enumerate(frames):
        strip.paste(frame.resize((width, height), Image.Resampling.NEAREST), (0, place * height))
    # By coverage, not by count: the heat and the photograph's own colours are few among many grey pixels.
    return strip.quantize(256, Image.Quantize.MAXCOVERAGE)


def _encode(image: Image.Image, name: str, **options: int) -> bytes:
    clean = Image.new(image.mode, image.size)  # Pillow's writers copy comments and profiles from the picture
    clean.paste(image)
    stream = BytesIO()
    clean.save(stream, name, **options)
    return stream.getvalue()
