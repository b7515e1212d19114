"""From captions to the record that goes out. Knows nothing of Flask."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from model import (
    Caption,
    Captioner,
    ImageLimits,
    Photograph,
    contact_sheet,
    data_url,
    photograph_record,
    word_overlay,
)

OVERLAYS = ("words", "sheet", "none")


def caption_record(
    data: bytes, photograph: Photograph, captions: list[Caption], overlays: str
) -> dict[str, Any]:
    """The record of a captioned photograph, as ``POST /v1/captions`` answers it.

    Args:
        data: the bytes that were uploaded.
        overlays: one of ``OVERLAYS``: a picture for every word, one for every caption, or none.
    """
    width, height = photograph.width, photograph.height
    record = photograph_record(
        {"width": width, "height": height, "format": photograph.format},
        sha256=sha256(data).hexdigest(),
        width=width,
        height=height,
        captions=captions,
        attention=True,
    )
    for caption, into in zip(captions, record["captions"], strict=True):
        _add_overlays(into, photograph, caption, overlays)
    return record


def _add_overlays(record: dict[str, Any], photograph: Photograph, caption: Caption, overlays: str) -> None:
    if overlays == "words":
        for index, word in enumerate(record["words"]):
            has_map = caption.words[index].attention is not None
            word["overlay"] = data_url(word_overlay(photograph.image, caption, index)) if has_map else None
    elif overlays == "sheet":
        record["sheet"] = data_url(contact_sheet(photograph.image, caption))


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
