"""A synthetic dataset: coloured shapes at known positions, with true captions and boxes.

It shows attention being learnt without downloading any data, and lets tests check that attention is on the
object. docs/training.md shows how to train on it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from model import OptionsError
from model.tokenizer import tokenize

COLOURS = {
    "red": (214, 39, 40),
    "green": (40, 160, 60),
    "blue": (45, 85, 225),
    "yellow": (250, 210, 40),
    "purple": (140, 60, 180),
    "orange": (250, 130, 20),
}
BACKGROUNDS = {"black": (15, 15, 15), "grey": (125, 125, 125), "white": (240, 240, 240)}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
RELATIONS = {"above": "below", "to the left of": "to the right of"}  # and their inverses

MIN_SIZE, MAX_SIZE = 32, 1024  # pixels a side
SMALL, LARGE = 0.26, 0.42  # of the image's side: the largest small shape, the smallest large shape
NOISE = 30  # maximum change of a level, of 255
CAPTIONS_PER_SCENE = 5
SMOOTHING = 4  # shapes are drawn this many times larger and scaled down, for smooth edges

# By the last digit of the scene's number, so that a larger world keeps the splits of a smaller one.
SPLITS = ("train",) * 8 + ("val", "test")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape in a scene."""

    name: str  # one of SHAPES
    colour: str  # one of COLOURS
    box: tuple[int, int, int, int]  # left, top, width, height of every pixel it touches


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image of one or two different shapes, and everything known about it."""

    image: Image.Image  # RGB, square
    background: str  # one of BACKGROUNDS
    shapes: tuple[Shape, ...]
    relation: str | None  # of the first shape to the second, one of RELATIONS, if it is clear
    captions: tuple[str, ...]  # CAPTIONS_PER_SCENE different true sentences


def draw_world(count: int, size: int = 64, seed: int = 0) -> list[Scene]:
    """The first ``count`` scenes of the world ``seed``; a larger world begins with a smaller one.

    Args:
        count: scenes, at least 1.
        size: pixels a side, ``MIN_SIZE`` to ``MAX_SIZE``.
        seed: any whole number; the same seed gives the same scenes.

    Raises:
        OptionsError: ``count`` or ``size`` is outside its range.
    """
    if count < 1:
        raise OptionsError(f"The number of photos is {count}; it must be at least 1.")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise OptionsError(f"The size is {size} pixels; it must be from {MIN_SIZE} to {MAX_SIZE}.")
    return [_draw_scene(size, Random(f"{seed}/{number}")) for number in range(count)]


def write_world(folder: Path, count: int, size: int = 64, seed: int = 0) -> list[Scene]:
    """Write the world of ``draw_world`` as a dataset, and return its scenes.

    Writes ``images/*.png``, ``captions.json`` (Karpathy JSON) and ``instances.json`` (COCO instances).

    Raises:
        OptionsError: ``count`` leaves a split empty, or an argument is outside its range.
        OSError: the folder cannot be written.
    """
    if count < len(SPLITS):
        raise OptionsError(
            f"The number of photos is {count}; it must be at least {len(SPLITS)}, "
            "or there is nothing to validate or test on."
        )
    scenes = draw_world(count, size, seed)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        scene.image.save(images / _filename(number))
    (folder / "captions.json").write_text(json.dumps(_karpathy(scenes)), encoding="utf-8")
    (folder / "instances.json").write_text(json.dumps(_coco(scenes)), encoding="utf-8")
    return scenes


def _draw_scene(size: int, rng: Random) -> Scene:
    background = rng.choice(list(BACKGROUNDS))
    image = _canvas(size, BACKGROUNDS[background], noisy=rng.random() < 0.5, rng=rng)
    relation = rng.choice(list(RELATIONS)) if rng.random() < 0.6 else None
    areas = _halves(size, relation) if relation else [(0, 0, size, size)]
    names = rng.sample(SHAPES, len(areas))
    shapes = tuple(_draw_shape(image, name, area, rng) for name, area in zip(names, areas, strict=True))
    captions = _captions(shapes, background, relation, size)
    return Scene(
        image=image,
        background=background,
        shapes=shapes,
        relation=relation,
        captions=tuple(rng.sample(captions, CAPTIONS_PER_SCENE)),
    )


def _canvas(size: int, colour: tuple[int, int, int], noisy: bool, rng: Random) -> Image.Image:
    pixels = np.full((size, size, 3), colour, dtype=np.int16)
    if noisy:
        grain = np.frombuffer(rng.randbytes(size * size), dtype=np.uint8).reshape(size, size, 1)
        pixels += (grain % (2 * NOISE + 1)).astype(np.int16) - NOISE
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _halves(size: int, relation: str) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the two positions that make ``relation`` true."""
    half = size // 2
    if relation == "above":
        return [(0, 0, size, half), (0, half, size, size)]
    return [(0, 0, half, size), (half, 0, size, size)]


def _draw_shape(image: Image.Image, name: str, area: tuple[int, int, int, int], rng: Random) -> Shape:
    left, top, right, bottom = area
    longest = min(right - left, bottom - top) * 0.9
    side = round(rng.uniform(0.2 * image.width, min(longest, 0.6 * image.width)))
    corner = (rng.randint(left, right - side), rng.randint(top, bottom - side))
    colour = rng.choice(list(COLOURS))
    mask = Image.new("L", image.size)
    mask.paste(_mask(name, side), corner)
    image.paste(COLOURS[colour], mask=mask)
    extent = mask.getbbox()
    assert extent is not None, name
    return Shape(name=name, colour=colour, box=(*extent[:2], extent[2] - extent[0], extent[3] - extent[1]))


def _mask(name: str, side: int) -> Image.Image:
    """The shape in white on black, ``side`` pixels a side."""
    mask = Image.new("L", (side * SMOOTHING, side * SMOOTHING))
    draw, end = ImageDraw.Draw(mask), side * SMOOTHING - 1
    third = end / 3
    if name in ("circle", "ring"):
        draw.ellipse((0, 0, end, end), fill=255)
        if name == "ring":
            hole = end / 4
            draw.ellipse((hole, hole, end - hole, end - hole), fill=0)
    elif name == "triangle":
        draw.polygon([(0, end), (end / 2, 0), (end, end)], fill=255)
    elif name == "cross":
        draw.rectangle((third, 0, 2 * third, end), fill=255)
        draw.rectangle((0, third, end, 2 * third), fill=255)
    else:
        draw.rectangle((0, 0, end, end), fill=255)
    return mask.reduce(SMOOTHING)


def _captions(shapes: Sequence[Shape], background: str, relation: str | None, size: int) -> list[str]:
    """Every sentence that is true of a scene."""
    if relation is None:
        return list(_captions_of_one(_sized(shapes[0], size), background))
    first, second = (_with_article(f"{shape.colour} {shape.name}") for shape in shapes)
    return [
        *_captions_of_two(first, second, relation, background),
        *_captions_of_two(second, first, RELATIONS[relation], background),
    ]


def _captions_of_one(thing: str, background: str) -> Iterator[str]:
    one = _with_article(thing)
    yield from (one, f"{one} on {background}", f"there is {one}", f"{one} on a {background} background")
    yield from (f"one {thing} on {background}", f"the picture shows {one}")


def _captions_of_two(first: str, second: str, relation: str, background: str) -> Iterator[str]:
    yield from (f"{first} {relation} {second}", f"{first} is {relation} {second}")
    yield from (f"there is {first} {relation} {second}", f"{first} {relation} {second} on {background}")
    yield from (f"{first} and {second}", f"{first} and {second} on {background}")


def _sized(shape: Shape, size: int) -> str:
    """The shape with its colour, and with its size where that is plain to see."""
    share = max(shape.box[2:]) / size
    word = "small " if share <= SMALL else "large " if share >= LARGE else ""
    return f"{word}{shape.colour} {shape.name}"


def _with_article(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def _filename(number: int) -> str:
    return f"{number:06d}.png"


def _karpathy(scenes: Sequence[Scene]) -> dict[str, Any]:
    images = []
    for number, scene in enumerate(scenes):
        first = number * CAPTIONS_PER_SCENE
        sentences = [
            {"tokens": tokenize(caption), "raw": caption, "imgid": number, "sentid": sentid}
            for sentid, caption in enumerate(scene.captions, start=first)
        ]
        images.append(
            {
                "filename": _filename(number),
                "imgid": number,
                "split": SPLITS[number % len(SPLITS)],
                "sentids": [sentence["sentid"] for sentence in sentences],
                "sentences": sentences,
            }
        )
    return {"dataset": "shapes", "images": images}


def _coco(scenes: Sequence[Scene]) -> dict[str, Any]:
    placed = [(number, shape) for number, scene in enumerate(scenes) for shape in scene.shapes]
    return {
        "images": [
            {
                "id": number,
                "file_name": _filename(number),
                "width": scene.image.width,
                "height": scene.image.height,
            }
            for number, scene in enumerate(scenes)
        ],
        "annotations": [
            {
                "id": identity,
                "image_id": number,
                "category_id": SHAPES.index(shape.name) + 1,
                "bbox": list(shape.box),
                "area": shape.box[2] * shape.box[3],
                "iscrowd": 0,
            }
            for identity, (number, shape) in enumerate(placed, start=1)
        ],
        "categories": [
            {"id": identity, "name": name, "supercategory": "shape"}
            for identity, name in enumerate(SHAPES, start=1)
        ],
    }
