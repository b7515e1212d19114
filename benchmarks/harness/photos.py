"""The photos that the benchmarks send."""

from pathlib import Path

from PIL import Image

from benchmarks.harness.server import ROOT
from model.drawing.overlay import encode_jpeg
from training.data.shapes import draw_world


def examples() -> list[bytes]:
    """The photos of examples/, of everyday sizes."""
    return [path.read_bytes() for path in sorted((ROOT / "examples").glob("*.jpg"))]


def different_photos(count: int, folder: Path | None) -> list[bytes]:
    """``count`` different images: the first of ``folder`` or, without one, drawn shapes."""
    if folder:
        return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:count]]
    return [encode_jpeg(scene.image) for scene in draw_world(count, size=224, seed=1)]


def large_photo() -> bytes:
    """A photo of 8 megapixels, as phones take them."""
    with Image.open(ROOT / "examples" / "stairs.jpg") as image:
        return encode_jpeg(image.resize((3264, 2448)))
