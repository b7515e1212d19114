"""The photos that the benchmarks of the service send."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from benchmarks.harness.server import ROOT
from training.data.shapes import draw_world

JPEG_QUALITY = 90


def examples() -> list[bytes]:
    """The photos in examples/, of everyday sizes."""
    return [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]


def different(count: int, folder: Path | None) -> list[bytes]:
    """Pictures no two of which are the same: the first of ``folder`` or, without one, drawn shapes."""
    if folder:
        return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:count]]
    return [jpeg(scene.image) for scene in draw_world(count, size=224, seed=1)]


def large() -> bytes:
    """A photo as a telephone takes it, 8 megapixels."""
    with Image.open(ROOT / "examples" / "stairs.jpg") as image:
        return jpeg(image.resize((3264, 2448)))


def jpeg(image: Image.Image) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
