"""Where objects are in photos: COCO instances files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.tokenizer import tokenize
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos
from training.data.json_files import parse_json, read_text
from training.errors import DataError

Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the photo


@dataclass(frozen=True, kw_only=True)
class AnnotatedPhoto(CaptionedPhoto):
    """A photo with the boxes of its objects; its captions, if any, are the references."""

    boxes: Mapping[str, Sequence[Box]]  # of every category it shows


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The content of an instances file. Boxes are fractions, because the photos on disk may be smaller."""

    categories: tuple[str, ...]  # including those that no photo shows
    photos: tuple[AnnotatedPhoto, ...]  # those with boxes, in the order of the file


def read_instances(instances: Path, images: Path | None, captions: Path | None = None) -> Instances:
    """The boxes of a COCO instances file, crowds included, and the references, if there are any.

    Args:
        instances: the file. Its ``captions`` (objects with ``image_id`` and ``caption``), if it has that
            list, are the references.
        images: the folder of its photos; None: only their names matter, and they need not exist.
        captions: a captions file whose captions of photos with the same file name are the references instead.

    Raises:
        DataError: a file cannot be read or is malformed, an entry refers to an unknown photo or category, a
            box has no area, or a photo does not exist.
    """
    found = _parse(instances, images or Path())
    if not found.photos:
        raise DataError(f"{instances} has no boxes.")
    if images and (missing := [photo.path for photo in found.photos if not photo.path.is_file()]):
        raise DataError(f"{len(missing)} photos of {instances} do not exist, {missing[0]} first.")
    if captions is None:
        return found
    references = {
        one.path.name: one.captions for one in load_photos([(captions, images or Path())], check="none")
    }
    described = tuple(replace(one, captions=references.get(one.path.name, ())) for one in found.photos)
    if not any(photo.captions for photo in described):
        raise DataError(f"{captions} has no captions of the photos with boxes in {instances}.")
    return replace(found, photos=described)


def _parse(instances: Path, images: Path) -> Instances:
    text = read_text(instances, "instances")
    try:
        return _from_coco(parse_json(text), images)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{instances} is not a COCO instances file ({type(error).__name__}: {error}); it must have the "
            "lists 'images' (id, file_name, width, height), 'categories' (id, name) and 'annotations' "
            "(image_id, category_id, bbox)."
        ) from None
    except DataError as error:
        raise DataError(f"In {instances}, {error}") from None


def _from_coco(data: dict[str, Any], images: Path) -> Instances:
    entries = {entry["id"]: entry for entry in data["images"]}
    names = {category["id"]: str(category["name"]) for category in data["categories"]}
    boxes: dict[Any, dict[str, list[Box]]] = {identifier: defaultdict(list) for identifier in entries}
    for annotation in data["annotations"]:
        name = _known(names, annotation["category_id"], "category")
        entry = _known(entries, annotation["image_id"], "image")
        boxes[entry["id"]][name].append(_as_fractions(annotation["bbox"], entry))
    references: dict[Any, list[tuple[str, ...]]] = {identifier: [] for identifier in entries}
    for caption in data.get("captions", ()):
        entry = _known(entries, caption["image_id"], "image")
        references[entry["id"]].append(tuple(tokenize(caption["caption"])))
    photos = tuple(
        AnnotatedPhoto(
            path=images / entry["file_name"],
            captions=tuple(filter(None, references[identifier])),
            split="test",  # never trained on
            boxes=dict(boxes[identifier]),
        )
        for identifier, entry in entries.items()
        if boxes[identifier]
    )
    return Instances(categories=tuple(names.values()), photos=photos)


def _known(entries: Mapping[Any, Any], identifier: Any, kind: str) -> Any:
    if identifier not in entries:
        raise DataError(f"an entry refers to the {kind} {identifier!r}, which the file does not list.")
    return entries[identifier]


def _as_fractions(bbox: Sequence[float], entry: Mapping[str, Any]) -> Box:
    """A box (left, top, width, height) in pixels as annotated, clipped to the photo."""
    (x, y, width, height), across, down = bbox, entry["width"], entry["height"]
    if across > 0 and down > 0:
        # This order of arguments lets max and min propagate NaN, which the comparison below rejects.
        left, right = max(x / across, 0.0), min((x + width) / across, 1.0)
        top, bottom = max(y / down, 0.0), min((y + height) / down, 1.0)
        if left < right and top < bottom:
            return left, top, right, bottom
    raise DataError(f"the box {bbox} has no area on the {across} x {down} pixels of {entry['file_name']}.")
