"""Unusual images that must be captioned as the plain image they show."""

import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from conftest import draw_photo
from numpy.typing import NDArray
from PIL import Image, ImageCms
from support.bad_inputs import GREY, RGB, chunk, encoded, png, zipped

SIZE = (120, 90)
EXACT, CLOSE = 0.0, 3.0  # mean difference of a channel, of 255; JPEG and palettes of animations lose a little
ORIENTED = b"\x01\x12\x00\x03"  # the orientation of EXIF, as a number of two bytes
ORIENTATION, ARTIST, DESCRIPTION, COPYRIGHT = 0x0112, 0x013B, 0x010E, 0x8298

# How a camera stores an upright image for each EXIF orientation: the inverse of what a viewer does.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class Odd(NamedTuple):
    """An unusual file, the plain image it shows, and how far apart they may be."""

    name: str
    make: Callable[[], bytes]
    shows: Callable[[], Image.Image]
    tolerance: float = EXACT
    hides: bool = False  # something that must never come back

    def __str__(self) -> str:
        return self.name


@cache
def plain() -> Image.Image:
    """What most of them show."""
    return draw_photo(1, SIZE)


def grey() -> Image.Image:
    return plain().convert("L").convert("RGB")


def half_white() -> Image.Image:
    """The plain image where it is opaque: its left half is transparent."""
    image = plain().copy()
    image.paste("white", (0, 0, SIZE[0] // 2, SIZE[1]))
    return image


def half_transparent(mode: str) -> Image.Image:
    """The plain image with the left half transparent, its colours still there."""
    image = plain().convert(mode)
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(0, (0, 0, SIZE[0] // 2, SIZE[1]))
    image.putalpha(alpha)
    return image


def few_colours() -> Image.Image:
    return plain().quantize(16)


def without_first_colour() -> Image.Image:
    """The image of few colours with white in place of the first."""
    image = few_colours().convert("RGB")
    image.paste("white", mask=few_colours().point(lambda index: 255 * (index == 0), "1"))
    return image


def sixteen_bits(values: NDArray[np.uint8], colour: int) -> bytes:
    """A PNG of 16 bits a channel, whose upper bytes are ``values`` and whose lower bytes vary."""
    noise = np.random.default_rng(5).integers(0, 256, values.shape)
    wide = (values.astype(int) * 256 + noise).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return png(values.shape[1], values.shape[0], rows, depth=16, colour=colour)


def jpeg(image: Image.Image, **how: object) -> bytes:
    return encoded(image, "JPEG", quality=95, **how)


def turned(orientation: int, kind: str) -> Callable[[], bytes]:
    """The plain image as a camera held that way stores it."""

    def make() -> bytes:
        turn = STORED[orientation]
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        lossless = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
        return encoded(plain() if turn is None else plain().transpose(turn), kind, exif=exif, **lossless)

    return make


def with_exif(tags: dict[int, object]) -> bytes:
    exif = Image.Exif()
    exif.update(tags)
    return jpeg(plain(), exif=exif)


def broken_exif(old: bytes, new: bytes) -> Callable[[], bytes]:
    """EXIF that turns the image, but for a part of it that is replaced and makes no sense any more."""

    def make() -> bytes:
        data = with_exif({ORIENTATION: 6})
        assert data.count(old) == 1
        return data.replace(old, new)

    return make


def animation(kind: str, frames: int) -> bytes:
    """The plain image, then ever other ones."""
    others = [draw_photo(seed, SIZE) for seed in range(2, frames + 1)]
    return encoded(
        plain(), kind, save_all=True, append_images=others, **{"lossless": True} if kind == "WEBP" else {}
    )


def large_frame() -> bytes:
    """A GIF whose canvas is a quarter of its frame."""
    data = encoded(plain(), "GIF")
    return data[:6] + struct.pack("<HH", SIZE[0] // 2, SIZE[1] // 2) + data[10:]


def other_profile() -> bytes:
    """A colour profile that swaps red and green; who heeds it sees other colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


def many_texts() -> bytes:
    data = encoded(plain())
    return data[:33] + chunk(b"tEXt", b"Comment\0x") * 100_000 + data[33:]


def two_in_one() -> bytes:
    return encoded(plain(), "MPO", quality=95, save_all=True, append_images=[draw_photo(2, SIZE)])


SCRIPT = "<script>alert(1)</script>"
PLACE = {0x8825: {1: "N", 2: (51.0, 28.0, 40.0), 3: "W", 4: (0.0, 0.0, 5.0)}}  # the GPS directory


def _pixels() -> Iterator[Odd]:
    """Kinds of pixels."""
    yield Odd("16-bit grey", lambda: sixteen_bits(np.asarray(plain().convert("L")), GREY), grey)
    yield Odd("16-bit colours", lambda: sixteen_bits(np.asarray(plain()), RGB), plain)
    yield Odd("palette", lambda: encoded(few_colours()), lambda: few_colours().convert("RGB"))
    yield Odd(
        "palette, one transparent", lambda: encoded(few_colours(), transparency=0), without_first_colour
    )
    yield Odd("palette of GIF", lambda: encoded(few_colours(), "GIF", transparency=0), without_first_colour)
    yield Odd("RGBA", lambda: encoded(half_transparent("RGB")), half_white)
    yield Odd("RGBA of WebP", lambda: encoded(half_transparent("RGB"), "WEBP", lossless=True), half_white)
    yield Odd("LA", lambda: encoded(half_transparent("L")), lambda: grey_right())
    yield Odd("one bit", lambda: encoded(plain().convert("1")), lambda: plain().convert("1").convert("RGB"))
    yield Odd("CMYK", lambda: jpeg(plain().convert("CMYK")), plain, CLOSE)
    yield Odd(
        "CMYK with a profile",
        lambda: jpeg(plain().convert("CMYK"), icc_profile=other_profile()),
        plain,
        CLOSE,
    )
    yield Odd("grey JPEG", lambda: jpeg(plain().convert("L")), grey, CLOSE)
    yield Odd("progressive JPEG", lambda: jpeg(plain(), progressive=True), plain, CLOSE)
    yield Odd(
        "JPEG with a wide-gamut profile", lambda: jpeg(plain(), icc_profile=other_profile()), plain, CLOSE
    )
    yield Odd("PNG with a wide-gamut profile", lambda: encoded(plain(), icc_profile=other_profile()), plain)


def grey_right() -> Image.Image:
    image = grey()
    image.paste("white", (0, 0, SIZE[0] // 2, SIZE[1]))
    return image


def _metadata() -> Iterator[Odd]:
    """What surrounds the pixels."""
    for orientation in STORED:
        yield Odd(f"{orientation} in PNG", turned(orientation, "PNG"), plain)
    yield Odd("6 in WebP", turned(6, "WEBP"), plain)
    yield Odd("6 in JPEG", turned(6, "JPEG"), plain, CLOSE)
    yield Odd("EXIF orientation 99", lambda: with_exif({ORIENTATION: 99}), plain, CLOSE)
    yield Odd("EXIF orientation as text", broken_exif(ORIENTED, b"\x01\x12\x00\x02"), plain, CLOSE)
    yield Odd(
        "EXIF offset behind the end", broken_exif(b"MM\0*\0\0\0\x08", b"MM\0*\xf0\xff\xff\xf0"), plain, CLOSE
    )
    yield Odd("60 kB of EXIF", lambda: with_exif({ARTIST: "x" * 60_000}), plain, CLOSE)
    yield Odd("PNG with 100,000 texts", many_texts, plain)
    yield Odd(
        "script in EXIF", lambda: with_exif({DESCRIPTION: SCRIPT, COPYRIGHT: SCRIPT}), plain, CLOSE, True
    )
    yield Odd("script in XMP", lambda: jpeg(plain(), xmp=SCRIPT.encode()), plain, CLOSE, True)
    yield Odd("script in a comment", lambda: jpeg(plain(), comment=SCRIPT.encode()), plain, CLOSE, True)
    yield Odd("GPS in EXIF", lambda: with_exif(PLACE), plain, CLOSE)


def _containers() -> Iterator[Odd]:
    """More than one image, or more than an image."""
    yield Odd("MPO", two_in_one, plain, CLOSE)
    yield Odd("GIF of 500 frames", lambda: animation("GIF", 500), plain, CLOSE)
    yield Odd("WebP of 60 frames", lambda: animation("WEBP", 60), plain)
    yield Odd("APNG of 30 frames", lambda: animation("PNG", 30), plain)
    yield Odd("GIF that ends in its second frame", lambda: animation("GIF", 2)[:-40], plain, CLOSE)
    yield Odd("GIF frame of four times the canvas", large_frame, plain, CLOSE)
    yield Odd("JPEG and ZIP", lambda: jpeg(plain()) + zipped(b"secret"), plain, CLOSE, True)
    yield Odd(
        "JPEG and HTML", lambda: jpeg(plain()) + b"<!-- " + SCRIPT.encode() + b" -->", plain, CLOSE, True
    )
    yield Odd("PNG and 1 MB", lambda: encoded(plain()) + bytes(1_000_000), plain, hides=True)


ODD = (*_pixels(), *_metadata(), *_containers())
