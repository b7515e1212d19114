"""Text on images: wrapped lines, and titles over panels."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 32, 36)
SOFT_INK: Colour = (104, 104, 110)
FAINT_INK: Colour = (176, 176, 180)
ACCENT_INK: Colour = (207, 50, 40)

MIN_PANEL_WIDTH = 72  # pixels: room for a title above a very narrow image
TITLE_SIZES = (20, 18, 16, 14, 12)  # a long title shrinks before it is truncated
TITLE_HEIGHT = 34
NOTE_SIZE, NOTE_GAP = 14, 7  # of the note beside a title


def titled(image: Image.Image, title: str, note: str = "") -> Image.Image:
    """The image under its title and, if there is room beside it, a smaller and paler note."""
    width = max(image.width, MIN_PANEL_WIDTH)
    fonts = [ImageFont.load_default(size=size) for size in TITLE_SIZES]
    note_font = ImageFont.load_default(size=NOTE_SIZE)
    room = width - (note_font.getlength(note) + NOTE_GAP if note else 0)
    if fonts[-1].getlength(title) > room:
        note, room = "", width
    font = next((font for font in fonts if font.getlength(title) <= room), fonts[-1])
    panel = Image.new("RGB", (width, TITLE_HEIGHT + image.height), PAPER)
    panel.paste(image, ((width - image.width) // 2, TITLE_HEIGHT))
    shown = shortened(title, font, room)
    left, baseline = (room - font.getlength(shown)) / 2, TITLE_HEIGHT - 8
    pen = ImageDraw.Draw(panel)
    pen.text((left, baseline), shown, INK, font, anchor="ls")
    right = left + font.getlength(shown) + NOTE_GAP
    pen.text((right, baseline), note, SOFT_INK, note_font, anchor="ls")
    return panel


class Text:
    """Words wrapped to lines of at most ``width`` pixels, in a font of ``size`` pixels."""

    def __init__(self, words: Sequence[str], width: int, size: int) -> None:
        self._font = ImageFont.load_default(size=size)
        self._line_height = round(size * 1.35)  # pixels
        self.words = [shortened(word, self._font, width) for word in words]
        self._positions: list[tuple[float, int]] = []  # left and line of every word
        space, left, line = self._font.getlength(" "), 0.0, 0
        for word in self.words:
            length = self._font.getlength(word)
            if left and left + length > width:
                left, line = 0.0, line + 1
            self._positions.append((left, line))
            left += length + space
        self.height = (line + 1) * self._line_height if words else 0

    def draw(self, image: Image.Image, corner: tuple[int, int], inks: Sequence[Colour]) -> None:
        """Draw the words with their top left at ``corner``, each in its ink."""
        pen = ImageDraw.Draw(image)
        for word, (left, line), ink in zip(self.words, self._positions, inks, strict=True):
            pen.text((corner[0] + left, corner[1] + line * self._line_height), word, ink, self._font)


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """The text, truncated with an ellipsis if it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept and font.getlength(text[:kept] + "…") > width:
        kept -= 1
    return text[:kept] + "…"
