"""Overlays of a whole caption: a contact sheet and an animated GIF."""

import math
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from model.caption import Caption, Word
from model.drawing.overlay import Canvas, bounded
from model.drawing.text import (
    ACCENT_INK,
    FAINT_INK,
    INK,
    MIN_PANEL_WIDTH,
    PAPER,
    SOFT_INK,
    TITLE_HEIGHT,
    Text,
    titled,
)

# The contact sheet, in pixels.
SHEET_SIDE = 1640  # maximum of the panels in either direction
PANEL_AREA = 320 * 240  # of the largest panel: an area, so that panoramas get wide panels
LONE_AREA = 640 * 480  # of the image when it is alone
GAP = 12
CAPTION_SIZE, NOTE_SIZE, MIN_TEXT_WIDTH = 26, 16, 480

ANIMATION_SIDE = 480  # pixels, longest side of the image in the animation
ANIMATION_TEXT_SIZE, ANIMATION_MIN_WIDTH = 22, 320  # pixels: keeps the caption under a narrow image legible
ANIMATION_MILLISECONDS = 800  # per word
ANIMATION_REST_MILLISECONDS = 1600  # the image alone, before the animation repeats


def contact_sheet(image: Image.Image, caption: Caption) -> Image.Image:
    """The caption, the image, and the overlay of every word in reading order, on white.

    After figure 2 of Xu et al. (2015). With a visual sentinel, each title says how much attention left the
    image. A line under the caption explains such titles, outlined cells and heads, or says that there are no
    maps; then the image is alone. ``image``: upright, RGB, any size, not modified.
    """
    mapped = [word for word in caption.words if word.attention is not None]
    columns, size = _layout(image.size, 1 + len(mapped))
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    panels = [titled(small, "")]
    canvas = Canvas(small, caption.grid)
    for word in mapped:
        share = "" if word.sentinel is None else f"sentinel {round(100 * word.sentinel)}%"
        panels.append(titled(canvas.draw_word(word), word.word, share))
    width, height = panels[0].size
    text_width = max(columns * (width + GAP) - GAP, MIN_TEXT_WIDTH)
    text = Text(caption.text.split(), text_width, CAPTION_SIZE)
    note = Text(_note(caption.words).split(), text_width, NOTE_SIZE)
    top = GAP + text.height + note.height
    bottom = top + math.ceil(len(panels) / columns) * height + GAP
    sheet = Image.new("RGB", (text_width + 2 * GAP, bottom), PAPER)
    text.draw(sheet, (GAP, GAP), [INK] * len(text.words))
    note.draw(sheet, (GAP, GAP + text.height), [SOFT_INK] * len(note.words))
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        sheet.paste(panel, (GAP + column * (width + GAP), top + row * height))
    return sheet


def animated_gif(image: Image.Image, caption: Caption) -> bytes:
    """A looping GIF: the image, then the overlay of every word, above the caption so far.

    A word without a map is shown under the plain image. ``image``: upright, RGB, any size, not modified;
    shown at most ``ANIMATION_SIDE`` pixels long.
    """
    small = bounded(image, ANIMATION_SIDE)
    canvas = Canvas(small, caption.grid)
    images = [small]
    for word in caption.words:
        images.append(small if word.attention is None else canvas.draw_word(word))
    words = [word.word for word in caption.words]
    frames = [_animation_frame(image, words, shown) for shown, image in enumerate(images)]
    palette = _shared_palette(frames)
    first, *others = (frame.quantize(palette=palette) for frame in frames)
    durations = [ANIMATION_REST_MILLISECONDS, *[ANIMATION_MILLISECONDS] * len(words)]
    stream = BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return stream.getvalue()


def _note(words: Sequence[Word]) -> str:
    """An explanation of the panels of these words."""
    notes = []
    if words and all(word.attention is None for word in words):
        notes.append("This model has no attention: there are no maps.")
    if heads := next((word.heads for word in words if word.heads), None):
        notes.append(f"Every map is the mean of {len(heads)} heads.")
    if any(word.chosen is not None for word in words):
        notes.append("Outlined: the one cell that the word was generated from.")
    if any(word.sentinel is not None for word in words):
        notes.append("Sentinel: share of a word's attention that left the photo.")
    return " ".join(notes)


def _layout(size: tuple[int, int], panels: int) -> tuple[int, tuple[int, int]]:
    """The number of columns, and the panel size, that make the panels of an image of ``size`` largest.

    Ties are broken by the fewest empty panels, then the most columns.
    """
    area = PANEL_AREA if panels > 1 else LONE_AREA

    def scale(columns: int) -> float:
        room_across = (SHEET_SIDE - GAP) / columns - GAP
        room_down = max(1.0, SHEET_SIDE / math.ceil(panels / columns) - TITLE_HEIGHT)
        return min(math.sqrt(area / (size[0] * size[1])), room_across / size[0], room_down / size[1])

    most = min(panels, SHEET_SIDE // (MIN_PANEL_WIDTH + GAP))
    columns = max(range(1, most + 1), key=lambda count: (scale(count), -(-panels % count), count))
    return columns, (max(1, int(size[0] * scale(columns))), max(1, int(size[1] * scale(columns))))


def _animation_frame(image: Image.Image, words: Sequence[str], shown: int) -> Image.Image:
    """The image above the caption: ``shown`` words in ink, the last of them in the accent colour."""
    width = max(image.width, ANIMATION_MIN_WIDTH)
    text = Text(words, width - 2 * GAP, ANIMATION_TEXT_SIZE)
    frame = Image.new("RGB", (width, image.height + text.height + 2 * GAP), PAPER)
    frame.paste(image, ((width - image.width) // 2, 0))
    inks = [INK if i < shown - 1 else ACCENT_INK if i == shown - 1 else FAINT_INK for i in range(len(words))]
    text.draw(frame, (GAP, image.height + GAP), inks)
    return frame


def _shared_palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One palette of 256 colours for all frames: with one each, the image would flicker."""
    width, height = (max(1, side // 3) for side in frames[0].size)  # a ninth of the pixels suffices
    strip = Image.new("RGB", (width, height * len(frames)))
    for index, frame in enumerate(frames):
        strip.paste(frame.resize((width, height), Image.Resampling.NEAREST), (0, index * height))
    # By coverage, not by count: the heat and the image's own colours are few among many grey pixels.
    return strip.quantize(256, Image.Quantize.MAXCOVERAGE)
