"""Overlays, contact sheets and animations of attention."""

import base64
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops

from model.caption import Caption, Grid, Word
from model.drawing import overlay
from model.drawing.contact_sheet import ANIMATION_MIN_WIDTH, ANIMATION_SIDE, animated_gif, contact_sheet
from model.drawing.overlay import WORD_SIDE, data_url, draw_overlay, encode_jpeg, encode_png, word_overlay
from model.drawing.text import TITLE_HEIGHT, Text, titled
from model.errors import OptionsError

WHOLE = (0.0, 0.0, 1.0, 1.0)
INSET = (0.25, 0.1, 0.75, 0.6)
SHAPES = [(280, 280), (210, 373), (4000, 300), (33, 47)]  # width, height
SENTENCE = "a very large brown dog runs over the green field toward another smaller white dog while three"


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Coarse coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def grey(size: tuple[int, int]) -> Image.Image:
    """An even photo, on which every difference is the heat's."""
    return Image.new("RGB", size, (120, 120, 120))


def one_hot(rows: int, columns: int, row: int, column: int) -> NDArray[np.float64]:
    attention = np.zeros((rows, columns))
    attention[row, column] = 1.0
    return attention


def as_rows(attention: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in attention.tolist())


def heat_seen(
    size: tuple[int, int], attention: NDArray[np.float64], box: tuple[float, ...]
) -> NDArray[np.float64]:
    """How far every pixel of an even photo is from its colour without attention, (height, width)."""
    rows, columns = attention.shape
    left, top, right, bottom = box
    grid = Grid(rows=rows, columns=columns, box=(left, top, right, bottom))
    drawn = np.asarray(draw_overlay(grey(size), as_rows(attention), grid), dtype=np.float64)
    cold = np.asarray(overlay._muted(grey(size)), dtype=np.float64)
    return np.abs(drawn - cold).sum(axis=2)


def caption_of(sentence: str, seed: int = 1, **changes: Any) -> Caption:
    """A caption whose words attend to random cells of a 3 x 4 grid, or have the fields ``changes``."""
    rng = np.random.default_rng(seed)
    maps = [as_rows(rng.dirichlet(np.full(12, 0.2)).reshape(3, 4)) for _ in sentence.split()]
    words = tuple(
        replace(Word(word=word, log_prob=-1.0, beta=0.5, attention=attention), **changes)
        for word, attention in zip(sentence.split(), maps, strict=True)
    )
    grid = Grid(rows=3, columns=4, box=WHOLE)
    return Caption(text=sentence, log_prob=-9.0, words=words, grid=grid, is_finished=True)


def frames_of(gif: bytes) -> list[Image.Image]:
    with Image.open(BytesIO(gif)) as animation:
        frames = []
        for index in range(getattr(animation, "n_frames", 1)):
            animation.seek(index)
            frames.append(animation.convert("RGB"))
    return frames


@pytest.mark.parametrize(
    ("size", "box", "row", "column"),
    [
        (SHAPES[0], WHOLE, 2, 4),
        (SHAPES[1], INSET, 3, 1),
        (SHAPES[2], INSET, 2, 4),
        (SHAPES[3], WHOLE, 3, 1),
    ],
)
def test_heat_is_on_the_attended_cell(
    size: tuple[int, int], box: tuple[float, ...], row: int, column: int
) -> None:
    rows, columns = 5, 6
    seen = heat_seen(size, one_hot(rows, columns, row, column), box)
    x = (np.arange(size[0]) + 0.5) / size[0]
    y = (np.arange(size[1]) + 0.5) / size[1]
    cell_width, cell_height = (box[2] - box[0]) / columns, (box[3] - box[1]) / rows
    across = np.abs(x - box[0] - (column + 0.5) * cell_width) / cell_width  # cells from the planted one
    down = np.abs(y - box[1] - (row + 0.5) * cell_height) / cell_height
    assert abs(seen.sum(axis=0) @ x / seen.sum() - box[0] - (column + 0.5) * cell_width) < 0.05 * cell_width
    assert abs(seen.sum(axis=1) @ y / seen.sum() - box[1] - (row + 0.5) * cell_height) < 0.05 * cell_height
    assert seen[np.ix_(down < 0.5, across < 0.5)].sum() > 0.5 * seen.sum()
    assert seen[np.ix_(down < 0.8, across < 0.8)].sum() > 0.9 * seen.sum()
    assert seen.argmax() in np.flatnonzero(np.outer(down < 0.5, across < 0.5))


@pytest.mark.parametrize("size", [SHAPES[0], SHAPES[2]])
def test_corner_cells_reach_the_border(size: tuple[int, int]) -> None:
    for row, column in [(0, 0), (0, 6), (6, 0), (6, 6)]:
        seen = heat_seen(size, one_hot(7, 7, row, column), WHOLE)
        assert seen[-(row > 0), -(column > 0)] >= 0.97 * seen.max()


def test_no_heat_outside_the_box() -> None:
    seen = heat_seen((200, 100), np.full((2, 2), 0.25), INSET)
    inside = np.zeros_like(seen, dtype=bool)
    inside[10:60, 50:150] = True
    assert seen[inside].min() > 0
    assert seen[~inside].max() == 0


def test_box_smaller_than_a_pixel_has_no_heat() -> None:
    assert heat_seen((20, 20), np.full((2, 2), 0.25), (0.501, 0.501, 0.502, 0.502)).max() == 0


@pytest.mark.parametrize("box", [WHOLE, INSET])
def test_uniform_map_has_even_low_heat(box: tuple[float, ...]) -> None:
    seen = heat_seen((200, 100), np.full((7, 7), 1 / 49), box)
    lit = seen[seen > 0]
    assert lit.max() == lit.min()
    assert lit.max() < 0.5 * heat_seen((200, 100), one_hot(7, 7, 3, 3), box).max()


def test_noise_of_nearly_uniform_map_is_not_amplified() -> None:
    noise = np.random.default_rng(0).uniform(0.95, 1.05, (7, 7))
    seen = heat_seen((140, 140), noise / noise.sum(), WHOLE)
    assert np.ptp(seen) < 0.05 * heat_seen((140, 140), one_hot(7, 7, 3, 3), WHOLE).max()


def test_peak_of_pointed_map_has_full_heat() -> None:
    rest = np.full((7, 7), 0.7 / 48)
    rest[3, 3] = 0.3
    pointed = heat_seen((140, 140), rest, WHOLE).max()
    assert pointed == heat_seen((140, 140), one_hot(7, 7, 3, 3), WHOLE).max()


def test_colour_map_is_monotonic_in_lightness() -> None:
    colours = np.frombuffer(overlay._heat_palette(), dtype=np.uint8).reshape(256, 3)
    lightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.5).all()
    assert lightness[-1] - lightness[0] > 180


def test_opacity_scales_heat() -> None:
    grid = Grid(rows=1, columns=1, box=WHOLE)
    clear = draw_overlay(photo((40, 30)), ((1.0,),), grid, opacity=0.0)
    covered = draw_overlay(photo((40, 30)), ((1.0,),), grid, opacity=1.0)
    assert np.asarray(covered).std(axis=(0, 1)).max() < np.asarray(clear).std(axis=(0, 1)).min()


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_invalid_opacity_is_refused(opacity: float) -> None:
    with pytest.raises(OptionsError, match="between 0 and 1"):
        draw_overlay(photo((40, 30)), ((1.0,),), Grid(rows=1, columns=1, box=WHOLE), opacity=opacity)


@pytest.mark.parametrize(
    "attention", [((0.5, 0.5),), ((0.2,), (0.2,)), ((1.5,), (-0.5,)), ((float("nan"),), (1.0,))]
)
def test_map_of_other_shape_fails_assertion(
    attention: tuple[tuple[float, ...], ...],
) -> None:
    with pytest.raises(AssertionError):
        draw_overlay(photo((40, 30)), attention, Grid(rows=2, columns=1, box=WHOLE))


def test_photo_is_not_modified() -> None:
    image, caption = photo((300, 200)), caption_of("a dog runs")
    before = image.tobytes()
    contact_sheet(image, caption)
    word_overlay(image, caption, 1)
    animated_gif(image, caption)
    assert image.tobytes() == before


def test_different_maps_have_different_overlays() -> None:
    caption = caption_of("dog cat")
    first, second = (word_overlay(photo((300, 200)), caption, index) for index in (0, 1))
    difference = np.asarray(ImageChops.difference(first, second))
    assert (difference.max(axis=2) > 40).mean() > 0.1


@pytest.mark.parametrize(
    ("size", "shown"),
    [((300, 200), (300, 200)), ((4000, 300), (WORD_SIDE, 58)), ((900, 1536), (450, WORD_SIDE))],
)
def test_word_overlay_keeps_aspect_ratio(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert word_overlay(photo(size), caption_of("dog"), 0).size == shown


@pytest.mark.parametrize(
    ("sentence", "index", "right"),
    [("a dog", 2, "choose 0 to 1"), ("a dog", -1, "choose 0 to 1"), ("", 0, "nothing to draw")],
)
def test_invalid_word_index_is_refused(sentence: str, index: int, right: str) -> None:
    with pytest.raises(OptionsError, match=right):
        word_overlay(photo((40, 30)), caption_of(sentence), index)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((300, 200), ""),
        ((4000, 300), "dog"),
        ((200, 430), SENTENCE + " " + SENTENCE),
        ((20_000, 16), SENTENCE),
        ((16, 20_000), SENTENCE),
    ],
)
def test_contact_sheet_size_is_bounded(size: tuple[int, int], sentence: str) -> None:
    sheet = contact_sheet(photo(size), caption_of(sentence))
    assert sheet.mode == "RGB"
    assert sheet.width <= 1700
    assert sheet.height <= 1900
    assert sheet.getpixel((0, 0)) == sheet.getpixel((sheet.width - 1, sheet.height - 1)) == (255, 255, 255)


def panels_drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Image, title and remark of every panel of the sheets drawn from now on."""
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "model.drawing.contact_sheet.titled", lambda *panel: drawn.append(panel) or titled(*panel)
    )
    return drawn


def lines_drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of the sheets drawn from now on."""
    drawn: list[str] = []
    monkeypatch.setattr(
        "model.drawing.contact_sheet.Text",
        lambda words, *size: drawn.append(" ".join(words)) or Text(words, *size),
    )
    return drawn


@pytest.mark.parametrize("sentence", ["", "dog", SENTENCE])
def test_contact_sheet_has_photo_and_one_panel_per_word(
    sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = panels_drawn(monkeypatch)
    image, caption = photo((300, 200)), caption_of(sentence)
    sheet = np.asarray(contact_sheet(image, caption))
    assert [titles for _, *titles in drawn] == [[""], *([word, ""] for word in sentence.split())]
    assert drawn[0][0].tobytes() == image.resize(drawn[0][0].size, Image.Resampling.LANCZOS).tobytes()
    for word, (drawing, *_) in zip(caption.words, drawn[1:], strict=True):
        again = draw_overlay(drawn[0][0], word.attention, caption.grid)
        assert drawing.tobytes() == again.tobytes()
    # Every panel keeps its pixels: the dark of the sheet is that of the panels, and of some ink.
    dark = sum(int((np.asarray(drawing) < 250).sum()) for drawing, *_ in drawn)
    assert dark <= (sheet < 250).sum() <= dark + 40_000


def test_title_stays_in_its_panel() -> None:
    panel = np.asarray(titled(photo((100, 60)), "pneumonoultramicroscopicsilicovolcanoconiosis" * 3))
    title = panel[:TITLE_HEIGHT]
    assert panel.shape[1] == 100
    assert (title < 128).any()
    assert (title[:, -1] == 255).all()
    assert (title[-1] == 255).all()


def test_note_is_dropped_before_title() -> None:
    drawing = photo((150, 60))
    plain, remarked = (np.asarray(titled(drawing, "dog", aside)) for aside in ("", "sentinel 31%"))
    assert (plain != remarked).any()
    narrow, crowded = (
        np.asarray(titled(photo((72, 60)), "standing", aside)) for aside in ("", "sentinel 31%")
    )
    assert (narrow == crowded).all()


def test_long_captions_are_wrapped() -> None:
    text = Text([*SENTENCE.split(), "w" * 200], 240, 20)
    page = Image.new("RGB", (240 + 40, text.height), "white")
    text.draw(page, (0, 0), [(0, 0, 0)] * len(text.words))
    assert text.height > 5 * 20
    assert (np.asarray(page)[:, 241:] == 255).all()


@pytest.mark.parametrize("size", [(300, 200), (20_000, 16)])
def test_contact_sheet_without_maps_says_so(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    panels, texts = panels_drawn(monkeypatch), lines_drawn(monkeypatch)
    image = photo(size)
    sheet = contact_sheet(image, caption_of(SENTENCE, attention=None, beta=None))
    [(drawing, title)] = panels
    assert title == ""
    assert (
        drawing.tobytes() == image.resize(drawing.size, Image.Resampling.LANCZOS, reducing_gap=3.0).tobytes()
    )
    assert texts == [SENTENCE, "This model has no attention: there are no maps."]
    assert max(sheet.size) <= 1900


def test_animation_without_maps_shows_plain_photo() -> None:
    image = photo((320, 200))
    frames = frames_of(animated_gif(image, caption_of("a dog runs", attention=None)))
    assert len(frames) == 4
    for frame in frames:
        assert np.abs(np.asarray(frame.crop((0, 0, 320, 200)), dtype=float) - np.asarray(image)).mean() < 16
    assert len({frame.tobytes() for frame in frames}) == 4


def test_word_overlay_without_map_is_refused() -> None:
    with pytest.raises(OptionsError, match="'dog' has no map"):
        word_overlay(photo((40, 30)), caption_of("a dog", attention=None), 1)


@pytest.mark.parametrize(
    ("level", "size", "rows", "columns", "row", "column"),
    [
        (0, (280, 280), 7, 7, 0, 6),
        (120, (900, 600), 14, 14, 8, 3),
        (255, (4000, 300), 3, 5, 2, 0),
        (255, (900, 600), 7, 7, 0, 6),
    ],
)
def test_chosen_cell_is_outlined(
    level: int, size: tuple[int, int], rows: int, columns: int, row: int, column: int
) -> None:
    image, grid = Image.new("RGB", size, (level,) * 3), Grid(rows=rows, columns=columns, box=WHOLE)
    attention = as_rows(one_hot(rows, columns, 1, 1))
    plain, outlined = (
        np.asarray(draw_overlay(image, attention, grid, chosen=chosen)) for chosen in (None, (row, column))
    )
    top, left = round(row * size[1] / rows), round(column * size[0] / columns)
    bottom, right = round((row + 1) * size[1] / rows), round((column + 1) * size[0] / columns)
    edge = np.concatenate(
        [outlined[top, left:right], outlined[top:bottom, left], outlined[bottom - 1, left:right]]
    )
    assert (edge == 255).all()
    changed = np.flatnonzero((plain != outlined).any(axis=(1, 2)))
    thick = changed.max() - changed.min() - (bottom - top)  # what reaches out of the cell
    assert thick <= 0.1 * (bottom - top) + 2
    inside = (
        slice((3 * top + bottom) // 4, (top + 3 * bottom) // 4),
        slice((3 * left + right) // 4, right - 1),
    )
    assert (outlined[inside] == 0).all(axis=2).any()  # the dark line within the light one
    middle = ((top + bottom) // 2, (left + right) // 2)
    assert (plain[middle] == outlined[middle]).all()


@pytest.mark.parametrize("size", [(16, 16), (20_000, 16), (16, 20_000)])
def test_cell_smaller_than_a_pixel_is_outlined(size: tuple[int, int]) -> None:
    caption = caption_of("dog runs", chosen=(2, 3))
    fine = replace(caption, grid=Grid(rows=3, columns=4, box=(0.9, 0.9, 0.91, 0.91)))
    for of in (caption, fine):
        assert contact_sheet(photo(size), of).mode == word_overlay(photo(size), of, 0).mode == "RGB"


def test_chosen_cell_is_outlined_in_every_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    panels, texts = panels_drawn(monkeypatch), lines_drawn(monkeypatch)
    image, caption = grey((400, 300)), caption_of("dog", chosen=(1, 2))
    contact_sheet(image, caption)
    frame = frames_of(animated_gif(image, caption))[1]
    for drawing in (panels[1][0], word_overlay(image, caption, 0), frame.crop((0, 0, 400, 300))):
        corner = (round(drawing.width / 2), round(drawing.height / 3))
        assert min(drawing.getpixel(corner)) > 240  # a GIF has only near-white
    assert texts[1] == "Outlined: the one cell that the word was generated from."


def test_contact_sheet_shows_sentinel_share(monkeypatch: pytest.MonkeyPatch) -> None:
    panels, texts = panels_drawn(monkeypatch), lines_drawn(monkeypatch)
    contact_sheet(photo((400, 300)), caption_of("a dog", sentinel=0.314))
    assert [titles for _, *titles in panels] == [[""], ["a", "sentinel 31%"], ["dog", "sentinel 31%"]]
    assert texts[1] == "Sentinel: share of a word's attention that left the photo."


def test_contact_sheet_notes_mean_of_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = lines_drawn(monkeypatch)
    map_of = as_rows(one_hot(3, 4, 1, 1))
    contact_sheet(photo((400, 300)), caption_of("a dog", attention=map_of, heads=(map_of, map_of)))
    assert texts[1] == "Every map is the mean of 2 heads."


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((300, 200), ""),
        ((1000, 1400), "a dog runs over a dog"),
        ((4000, 300), "dog"),
        ((16, 20_000), "dog"),
    ],
)
def test_animation_has_photo_and_one_frame_per_word(size: tuple[int, int], sentence: str) -> None:
    gif = animated_gif(photo(size), caption_of(sentence))
    frames = frames_of(gif)
    assert len(frames) == len(sentence.split()) + 1
    assert max(frames[0].width, ANIMATION_MIN_WIDTH) <= ANIMATION_SIDE
    assert frames[0].height <= ANIMATION_SIDE + 100


def test_animation_loops_over_overlays() -> None:
    image, caption = photo((320, 200)), caption_of("a dog runs")
    gif = animated_gif(image, caption)
    assert b"NETSCAPE2.0" in gif
    drawings = [image, *(word_overlay(image, caption, index) for index in range(3))]
    shown = [np.asarray(frame.crop((0, 0, 320, 200)), dtype=np.float64) for frame in frames_of(gif)]
    errors = np.array(
        [[np.abs(frame - np.asarray(drawing)).mean() for drawing in drawings] for frame in shown]
    )
    assert errors.argmin(axis=1).tolist() == [0, 1, 2, 3]
    assert errors.diagonal().max() < 16  # of 255; 256 colours, dithered
    assert {frame.getpixel((2, frame.height - 2)) for frame in frames_of(gif)} == {(255, 255, 255)}


def test_equal_words_have_separate_frames() -> None:
    even = tuple([(1 / 12,) * 4] * 3)
    words = tuple(Word(word="the", log_prob=-1.0, beta=0.5, attention=even) for _ in range(4))
    grid = Grid(rows=3, columns=4, box=WHOLE)
    caption = Caption(text="the the the the", log_prob=-4.0, words=words, grid=grid, is_finished=False)
    assert len(frames_of(animated_gif(grey((64, 48)), caption))) == 5


def test_written_images_have_no_metadata() -> None:
    image = photo((120, 90))
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    image.info = {"exif": exif.tobytes(), "comment": b"SECRET", "icc_profile": b"SECRET", "dpi": (72, 72)}
    caption = caption_of("a dog")
    sheet, single = contact_sheet(image, caption), word_overlay(image, caption, 0)
    assert sheet.info == single.info == {}
    files = [encode(drawing) for encode in (encode_png, encode_jpeg) for drawing in (image, sheet, single)]
    for data in [*files, animated_gif(image, caption)]:
        assert b"SECRET" not in data
        with Image.open(BytesIO(data)) as written:
            assert not written.getexif()


def test_png_is_lossless_and_data_url_is_jpeg() -> None:
    image = photo((120, 90))
    assert Image.open(BytesIO(encode_png(image))).tobytes() == image.tobytes()
    scheme, data = data_url(image).split(",")
    assert scheme == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as written:
        assert (written.format, written.size) == ("JPEG", image.size)
