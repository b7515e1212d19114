"""Words on pictures: lines of text that fit a width, and titles over panels.

This file knows nothing of captions or attention.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 32, 36)
SOFT_INK: Colour = (104, 104, 110)
FAINT_INK: Colour = (176, 176, 180)
ACCENT_INK: Colour = (207, 50, 40)

MIN_PANEL_WIDTH = 72  # pixels: room for a title above a sliver of a photo
TITLE_SIZES = (20, 18, 16, 14, 12)  # a long title shrinks before it loses letters
TITLE_HEIGHT = 34
ASIDE_SIZE, ASIDE_GAP = 14, 7  # of a remark beside a title


def titled(picture: Image.Image, title: str, aside: str = "") -> Image.Image:
    """The picture under its title and, where there is room beside that, a smaller and paler remark."""
    width = max(picture.width, MIN_PANEL_WIDTH)
    fonts = [ImageFont.load_default(size=size) for size in TITLE_SIZES]
    aside_font = ImageFont.load_default(size=ASIDE_SIZE)
    room = width - (aside_font.getlength(aside) + ASIDE_GAP if aside else 0)
    if fonts[-1].getlength(title) > room:
        aside, room = "", width
    font = next((font for font in fonts if font.getlength(title) <= room), fonts[-1])
    panel = Image.new("RGB", (width, TITLE_HEIGHT + picture.height), PAPER)
    panel.paste(picture, ((width - picture.width) // 2, TITLE_HEIGHT))
    shown = shortened(title, font, room)
    left, baseline = (room - font.getlength(shown)) / 2, TITLE_HEIGHT - 8
    pen = ImageDraw.Draw(panel)
    pen.text((left, baseline), shown, INK, font, anchor="ls")
    right = left + font.getlength(shown) + ASIDE_GAP
    pen.text((right, baseline), aside, SOFT_INK, aside_font, anchor="ls")
    return panel


class Text:
    """Words broken into lines of at most ``width`` pixels, at ``size`` pixels."""

    def __init__(self, words: Sequence[str], width: int, size: int) -> None:
        self._font = ImageFont.load_default(size=size)
        self._line_height = round(size * 1.35)  # pixels
        self.words = [shortened(word, self._font, width) for word in words]
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


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text, with an ellipsis for its end where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept and font.getlength(text[:kept] + "…") > width:
        kept -= 1
    return text[:kept] + "…"
