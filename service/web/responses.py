"""From captions to the record that goes out. Knows nothing of Flask."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from model import (
    Caption,
    Captioner,
    ImageLimits,
    Photo,
    contact_sheet,
    data_url,
    encode_png,
    photo_record,
    walk_gif,
    word_overlay,
    word_overlays,
)


def caption_record(data: bytes, photo: Photo, captions: list[Caption], overlays: str) -> dict[str, Any]:
    """The record of a captioned photo, as ``POST /v1/captions`` answers it.

    Args:
        data: the bytes that were uploaded.
        overlays: a picture for every word ("words"), one for every caption ("sheet"), or "none".
    """
    width, height = photo.width, photo.height
    record = photo_record(
        {"width": width, "height": height, "format": photo.format},
        sha256=sha256(data).hexdigest(),
        width=width,
        height=height,
        captions=captions,
        attention=True,
    )
    for caption, into in zip(captions, record["captions"], strict=True):
        _add_overlays(into, photo, caption, overlays)
    return record


def _add_overlays(record: dict[str, Any], photo: Photo, caption: Caption, overlays: str) -> None:
    if overlays == "words":
        drawn = word_overlays(photo.image, caption)
        for word, picture in zip(record["words"], drawn, strict=True):
            word["overlay"] = None if picture is None else data_url(picture)
    elif overlays == "sheet":
        record["sheet"] = data_url(contact_sheet(photo.image, caption))


def draw(photo: Photo, caption: Caption, kind: str, word: int | None) -> bytes:
    """Where a caption looked, as a file: a walk ("gif"), or ("png") one word, or a sheet of all.

    Raises:
        OptionsError: there is no such word, or it has no map.
    """
    if kind == "gif":
        return walk_gif(photo.image, caption)
    if word is None:
        return encode_png(contact_sheet(photo.image, caption))
    return encode_png(word_overlay(photo.image, caption, word))


def model_record(captioner: Captioner, limits: ImageLimits, max_bytes: int) -> dict[str, Any]:
    """The model card as data, as ``GET /v1/model`` answers it."""
    info = captioner.info
    return {
        "name": info.name,
        "sha256": info.sha256,
        "vocabulary_size": len(captioner.vocabulary),
        "attention": captioner.config.attention,
        "scores": info.scores,
        "licence": info.licence,
        "trained_on": info.trained_on,
        "limits": {
            "max_bytes": max_bytes,
            "max_pixels": limits.max_pixels,
            "min_side": limits.min_side,
            "max_side": limits.max_side,
        },
    }
