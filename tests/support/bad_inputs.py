"""Files that must be refused, and how tests build and upload files of any content.

Files are made when they are asked for, the same bytes every time.
"""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from conftest import draw_photo
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import TestResponse, encode_multipart

PNG_START = b"\x89PNG\r\n\x1a\n"
GREY, RGB, RGBA = 0, 2, 6  # colour types of PNG


class File(NamedTuple):
    """A file to upload, and the statuses that are right for it."""

    name: str
    make: Callable[[], bytes]
    statuses: tuple[int, ...]

    def __str__(self) -> str:
        return self.name


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    """An image as the bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


@cache
def photo(kind: str, **how: Any) -> bytes:
    """A drawn image of a few thousand pixels as the bytes of a file."""
    return encoded(draw_photo(1, (120, 90)), kind, **how)


def form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A form as the test client takes it; by itself it would put a large one into a temporary file."""
    boundary, body = encode_multipart(fields, "boundary-of-the-form")
    return {"data": body, "content_type": f"multipart/form-data; boundary={boundary}"}


def upload(data: bytes, name: str = "a.jpg") -> FileStorage:
    """A file as ``form`` takes it."""
    return FileStorage(io.BytesIO(data), name)


def post(client: FlaskClient, data: bytes, route: str = "/v1/captions", **fields: str) -> TestResponse:
    """Upload a file of any size, with options."""
    return client.post(route, **form({"image": upload(data), **fields}))


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of PNG with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, *before: bytes, depth: int = 8, colour: int = RGB) -> bytes:
    """A PNG of the given header, whatever the rows hold (each begins with its filter); other chunks first."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return PNG_START + header + b"".join(before) + pixels + chunk(b"IEND", b"")


def blank_png(width: int, height: int, *before: bytes, depth: int = 8, colour: int = RGB) -> bytes:
    """A black PNG that truly has its size."""
    bits = {GREY: 1, RGB: 3, RGBA: 4}[colour] * depth
    return png(
        width, height, bytes(1 + (width * bits + 7) // 8) * height, *before, depth=depth, colour=colour
    )


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def patched(data: bytes, at: int, new: bytes) -> bytes:
    assert 0 <= at <= len(data) - len(new)
    return data[:at] + new + data[at + len(new) :]


def flipped(data: bytes, at: int) -> bytes:
    return patched(data, at, bytes([data[at] ^ 0xFF]))


def claiming(width: int, height: int) -> Callable[[], bytes]:
    """A JPEG whose header claims this size."""

    def make() -> bytes:
        data = photo("JPEG")
        return patched(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))

    return make


def scrambled(start: bytes) -> Callable[[], bytes]:
    """A JPEG with 40 other bytes in its scan, which begin with ``start``."""

    def make() -> bytes:
        data = encoded(draw_photo(1, (400, 300)), "JPEG", quality=95)
        rest = bytes((37 * n + 11) % 255 for n in range(40 - len(start)))
        return patched(data, data.index(b"\xff\xda") + 214, start + rest)

    return make


def gif_canvas() -> bytes:
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x00\x00\x00," + bytes(8) + b"\x02\x01\x00\x00;"


def bmp_canvas() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.png"), data)
    return stream.getvalue()


def tarred(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def packed(name: bytes, length: int) -> bytes:
    """A chunk of PNG that unpacks to so many bytes."""
    return chunk(name, b"Comment\0\0" + zlib.compress(bytes(length), 9))


SVG = b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'>%s</svg>"
ENTITY = b"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"

REFUSED = (
    File("no bytes", bytes, (400,)),
    File("text", lambda: b"not a photo at all\n" * 20, (415,)),
    File("HTML", lambda: b"<!doctype html><html><body onload=alert(1)></body></html>", (415,)),
    File("JavaScript", lambda: b"document.title = 'photograph';\n", (415,)),
    File("SVG", lambda: SVG % b"<rect width='9' height='9'/>", (415,)),
    File("SVG with a script", lambda: SVG % b"<script>alert(1)</script>", (415,)),
    File("SVG with an entity", lambda: ENTITY + SVG % b"<text>&x;</text>", (415,)),
    File("EPS", lambda: photo("EPS"), (415,)),
    File("PDF", lambda: photo("PDF"), (415,)),
    File("TIFF", lambda: photo("TIFF"), (415,)),
    File("ICO", lambda: photo("ICO"), (415,)),
    File(
        "PSD",
        lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 90, 120, 8, 3) + bytes(99),
        (415,),
    ),
    File("PPM", lambda: photo("PPM"), (415,)),
    File("TGA", lambda: photo("TGA"), (415,)),
    File("JPEG 2000", lambda: photo("JPEG2000"), (415,)),
    File("AVIF", lambda: photo("AVIF"), (415,)),
    File("HEIC", lambda: struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(99), (415,)),
    File("ZIP", lambda: zipped(photo("PNG")), (415,)),
    File("gzip", lambda: gzip.compress(photo("PNG"), mtime=0), (415,)),
    File("tar", lambda: tarred(photo("PNG")), (415,)),
    File("20 bytes of JPEG", lambda: photo("JPEG")[:20], (415,)),
    File("beginning and end of JPEG", lambda: b"\xff\xd8\xff\xd9", (415,)),
    File("signature of PNG", lambda: PNG_START, (415,)),
    File("half a JPEG", lambda: half(photo("JPEG")), (422,)),
    File("half a PNG", lambda: half(photo("PNG")), (422,)),
    File("half a WebP", lambda: half(photo("WEBP")), (422,)),
    File("half a GIF", lambda: half(photo("GIF")), (422,)),
    File(
        "PNG with a flipped byte of pixels",
        lambda: flipped(photo("PNG"), photo("PNG").index(b"IDAT") + 40),
        (422,),
    ),
    File("wrong checksum of a PNG header", lambda: flipped(photo("PNG"), 29), (415,)),
    File("PNG of 0 x 10 pixels", lambda: png(0, 10, b""), (415,)),
    File("JPEG with a scrambled scan", scrambled(b"\xff\xc4"), (422,)),
    File("PNG that claims 900 megapixels", lambda: png(30_000, 30_000, b""), (422,)),
    File("PNG of 100 megapixels of one bit", lambda: blank_png(10_000, 10_000, depth=1, colour=GREY), (422,)),
    File("PNG of the largest size", lambda: png(2**31 - 1, 2**31 - 1, b""), (422,)),
    File("GIF of the largest size", gif_canvas, (422,)),
    File("BMP of 60000 x 60000", bmp_canvas, (422,)),
    File("JPEG that claims 65500 x 65500", claiming(65_500, 65_500), (422,)),
    File("JPEG that claims 9000 x 9000", claiming(9_000, 9_000), (422,)),
    File("PNG of 20000 x 1", lambda: blank_png(20_000, 1), (422,)),
    File("PNG of 1 x 20000", lambda: blank_png(1, 20_000), (422,)),
    File("PNG of 1 x 1", lambda: blank_png(1, 1), (422,)),
    File("PNG with 2 MB of text", lambda: blank_png(64, 48, packed(b"zTXt", 2_000_000)), (422,)),
    File(
        "PNG with 100 texts of 900 kB", lambda: blank_png(64, 48, *[packed(b"zTXt", 900_000)] * 100), (422,)
    ),
    File("PNG with 50 MB of profile", lambda: blank_png(64, 48, packed(b"iCCP", 50_000_000)), (422,)),
    File("script that begins as a GIF", lambda: b"GIF89a/*" + bytes(8) + b"*/=1;alert(1)//;", (415,)),
)
