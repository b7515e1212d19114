"""Where the objects of photos are: annotation files in COCO's form."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.tokenizer import tokenize
from training.data.caption_files import CaptionedPhoto, list_photos
from training.errors import DataError

Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the photo


@dataclass(frozen=True, kw_only=True)
class AnnotatedPhoto(CaptionedPhoto):
    """A photo whose objects are known; its captions, if any, are the references."""

    boxes: Mapping[str, Sequence[Box]]  # of every category that it shows


@dataclass(frozen=True, kw_only=True)
class Instances:
    """What an annotation file knows: fractions throughout, for the photos on disk may be smaller."""

    categories: tuple[str, ...]  # also those that no photo shows
    photos: tuple[AnnotatedPhoto, ...]  # those with boxes, in the file's order


def read_instances(instances: Path, images: Path, captions: Path | None = None) -> Instances:
    """The boxes of a COCO instances file, crowds included, and the references, where they are known.

    References are the file's own ``captions`` (objects with ``image_id`` and ``caption``) or, if ``captions``
    names a Karpathy JSON file, those it has for photos of the same file name.

    Raises:
        DataError: a file cannot be read or has another form, an entry names an unknown photo or
            category, a box has no area, or a photo does not exist.
    """
    try:
        found = _from_coco(json.loads(instances.read_text(encoding="utf-8")), images)
    except OSError as error:
        raise DataError(f"The instances {instances} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{instances} is no COCO instances file ({type(error).__name__}: {error}); it needs lists "
            "'images' (id, file_name, width, height), 'categories' (id, name) and 'annotations' (image_id, "
            "category_id, bbox)."
        ) from None
    except DataError as error:
        raise DataError(f"In {instances} {error}") from None
    if not found.photos:
        raise DataError(f"{instances} has no boxes.")
    if missing := [photo.path for photo in found.photos if not photo.path.is_file()]:
        raise DataError(f"{len(missing)} photos of {instances} do not exist, {missing[0]} first.")
    if captions is None:
        return found
    written = {listed.path.name: listed.captions for listed in list_photos(captions, images)}
    described = tuple(replace(one, captions=written.get(one.path.name, ())) for one in found.photos)
    if not any(photo.captions for photo in described):
        raise DataError(f"{captions} has no captions of the photos with boxes in {instances}.")
    return replace(found, photos=described)


def _from_coco(data: dict[str, Any], images: Path) -> Instances:
    entries = {entry["id"]: entry for entry in data["images"]}
    names = {category["id"]: str(category["name"]) for category in data["categories"]}
    boxes: dict[Any, dict[str, list[Box]]] = {identity: defaultdict(list) for identity in entries}
    for annotation in data["annotations"]:
        name = _known(names, annotation["category_id"], "category")
        entry = _known(entries, annotation["image_id"], "photograph")
        boxes[entry["id"]][name].append(_as_fractions(annotation["bbox"], entry))
    references: dict[Any, list[tuple[str, ...]]] = {identity: [] for identity in entries}
    for caption in data.get("captions", ()):
        entry = _known(entries, caption["image_id"], "photograph")
        references[entry["id"]].append(tuple(tokenize(caption["caption"])))
    photos = tuple(
        AnnotatedPhoto(
            path=images / entry["file_name"],
            captions=tuple(filter(None, references[identity])),
            split="test",  # nothing is trained on them
            boxes=dict(boxes[identity]),
        )
        for identity, entry in entries.items()
        if boxes[identity]
    )
    return Instances(categories=tuple(names.values()), photos=photos)


def _known(entries: Mapping[Any, Any], identity: Any, kind: str) -> Any:
    if identity not in entries:
        raise DataError(f"an entry names the {kind} {identity!r}, which the file does not list.")
    return entries[identity]


def _as_fractions(bbox: Sequence[float], entry: Mapping[str, Any]) -> Box:
    """A box (left, top, width, height) in pixels as annotated; what sticks out of the picture is cut off."""
    (x, y, width, height), across, down = bbox, entry["width"], entry["height"]
    if across > 0 and down > 0:
        # In this order max and min keep a NaN, and below it is refused.
        left, right = max(x / across, 0.0), min((x + width) / across, 1.0)
        top, bottom = max(y / down, 0.0), min((y + height) / down, 1.0)
        if left < right and top < bottom:
            return left, top, right, bottom
    raise DataError(f"the box {bbox} has no area on the {across} x {down} pixels of {entry['file_name']}.")
