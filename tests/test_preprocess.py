"""open_image and Preprocess: formats, limits, orientation and normalization."""

import io
from contextlib import suppress
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw_photo
from PIL import Image

from model import (
    EmptyImageError,
    ImageError,
    ImageLimitError,
    ImageLimits,
    ModelConfig,
    UndecodableImageError,
    UnsupportedImageError,
    open_image,
)
from model.preprocess import Preprocess


def encoded(image: Image.Image, name: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


def with_orientation(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif, quality=95, subsampling=0)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_formats_are_detected_by_content(name: str) -> None:
    photo = open_image(encoded(draw_photo(1), name))
    assert (photo.format, photo.width, photo.height, photo.image.mode) == (name, 64, 48, "RGB")


def test_photo_has_the_sha256_of_its_file() -> None:
    data = encoded(draw_photo(1))
    assert open_image(data).sha256 == open_image(io.BytesIO(data)).sha256 == sha256(data).hexdigest()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("at", "flip"), [(41, 31), (43, 11), (12, 0xFF), (32, 0xFF), (52, 0xFF)])
def test_damaged_exif_is_ignored(at: int, flip: int) -> None:
    data = bytearray(with_orientation(draw_photo(6), 6))
    data[at] ^= flip
    with suppress(UnsupportedImageError, UndecodableImageError):  # the flip hit the frame of the file
        assert open_image(bytes(data)).image.size in ((64, 48), (48, 64))


def test_transparent_pixels_become_white() -> None:
    hidden = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert open_image(encoded(hidden)).image.getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 200, 0] + [0] * 765)
    assert open_image(encoded(palette, transparency=0)).image.getpixel((5, 5)) == (255, 255, 255)


def test_16_bit_grey_is_scaled() -> None:
    ramp = np.repeat(np.linspace(0, 65535, 32).astype(np.uint16)[None], 20, axis=0)
    pixels = np.asarray(open_image(encoded(Image.fromarray(ramp))).image)[0, :, 0]
    assert list(pixels) == [value >> 8 for value in ramp[0]]


def test_cmyk_grey_and_one_bit_images_keep_colours() -> None:
    red = open_image(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")).image.getpixel((5, 5))
    assert red[0] > 200
    assert max(red[1:]) < 60
    assert open_image(encoded(Image.new("L", (20, 20), 90))).image.getpixel((5, 5)) == (90, 90, 90)
    assert open_image(encoded(Image.new("1", (20, 20), 1))).image.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "RGB"])
def test_bands_leave_no_seams(mode: str) -> None:
    """Images are converted a band at a time; no seam may show."""
    tall = draw_photo(7, (48, 600)).convert("RGBA")
    tall.putalpha(tall.convert("L"))
    tall = tall.convert(mode)
    whole = np.asarray(open_image(encoded(tall)).image)
    for top in range(0, 600, 50):
        part = encoded(tall.crop((0, top, 48, top + 50)))
        assert (np.asarray(open_image(part).image) == whole[top : top + 50]).all()


def test_first_frame_of_animation_is_used() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    opened = open_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert opened.image.getpixel((5, 5)) == (255, 0, 0)


def test_opened_image_has_no_metadata() -> None:
    assert open_image(with_orientation(draw_photo(3), 6)).image.info == {}
    assert not open_image(with_orientation(draw_photo(3), 6)).image.getexif()


def bomb() -> bytes:
    return encoded(Image.new("1", (10_000, 10_000)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyImageError),
        (b"not a picture", UnsupportedImageError),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedImageError),
        (encoded(draw_photo(4), "TIFF"), UnsupportedImageError),
        (encoded(draw_photo(4), "JPEG")[:700], UndecodableImageError),
        (encoded(draw_photo(4), "PNG")[:-40], UndecodableImageError),
        (encoded(Image.new("RGB", (15, 40))), ImageLimitError),
        (encoded(Image.new("1", (20_001, 16))), ImageLimitError),
    ],
)
def test_invalid_image_raises_its_error(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_image(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_100_megapixels_are_refused_before_decoding() -> None:
    with pytest.raises(ImageLimitError, match="100 megapixels"):
        open_image(bomb())


def test_limits_are_configurable() -> None:
    with pytest.raises(ImageLimitError, match="at most 0"):
        open_image(encoded(draw_photo(5)), ImageLimits(max_pixels=64 * 48 - 1))


def test_images_become_normalized_squares(config: ModelConfig) -> None:
    preprocess = Preprocess(config)
    for size in ((64, 48), (4000, 300), (17, 900)):
        tensor = preprocess(Image.new("RGB", size, (255, 128, 0)))
        assert tensor.shape == (3, config.image_size, config.image_size)
        expected = (torch.tensor([1, 128 / 255, 0]) - torch.tensor(config.mean)) / torch.tensor(config.std)
        torch.testing.assert_close(tensor[:, 3, 4], expected)


def test_non_rgb_image_error_names_open_image(config: ModelConfig) -> None:
    with pytest.raises(ImageError, match="open_image"):
        Preprocess(config)(Image.new("RGBA", (30, 30)))


def test_image_regions_map_to_input_regions(config: ModelConfig) -> None:
    image = Image.new("RGB", (400, 90))
    image.paste((255, 255, 255), (200, 0, 400, 45))
    tensor = Preprocess(config)(image)
    half = config.image_size // 2
    bright = tensor[0] > 0
    assert bright[: half - 2, half + 2 :].all()
    assert not bright[half + 2 :].any()
    assert not bright[:, : half - 2].any()


def test_grid_covers_the_whole_photo(config: ModelConfig) -> None:
    grid = Preprocess(config).grid(5, 5)
    assert (grid.rows, grid.columns, grid.box) == (5, 5, (0.0, 0.0, 1.0, 1.0))
