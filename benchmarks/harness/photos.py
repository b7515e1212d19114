"""The photos that the benchmarks send."""

import io
from pathlib import Path

from PIL import Image

from benchmarks.harness.server import ROOT
from training.data.shapes import draw_world

JPEG_QUALITY = 90


def examples() -> list[bytes]:
    """The photos of examples/, of everyday sizes."""
    return [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]


def different_photos(count: int, folder: Path | None) -> list[bytes]:
    """``count`` different images: the first of ``folder`` or, without one, drawn shapes."""
    if folder:
        return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:count]]
    return [_jpeg(scene.image) for scene in draw_world(count, size=224, seed=1)]


def large_photo() -> bytes:
    """A photo of 8 megapixels, as phones take them."""
    with Image.open(ROOT / "examples" / "stairs.jpg") as image:
        return _jpeg(image.resize((3264, 2448)))


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
