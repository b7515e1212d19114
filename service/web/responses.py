"""Captions as JSON records and images. Knows nothing of Flask."""

from dataclasses import asdict
from typing import Any

from model import (
    Captioner,
    ImageLimits,
    animated_gif,
    contact_sheet,
    data_url,
    encode_png,
    word_overlay,
    word_overlays,
)
from service.worker import Captioned


def caption_response(result: Captioned, overlays: str) -> dict[str, Any]:
    """The record of a captioned photo, as ``POST /v1/captions`` returns it.

    Args:
        overlays: an image per word ("words"), a contact sheet per caption ("sheet"), or "none".
    """
    photo = result.photo
    image = {"width": photo.width, "height": photo.height, "format": photo.format}
    record = photo.as_record(image, result.captions, attention=True)
    for caption, caption_record in zip(result.captions, record["captions"], strict=True):
        if overlays == "words":
            drawn = word_overlays(photo.image, caption)
            for word, overlay in zip(caption_record["words"], drawn, strict=True):
                word["overlay"] = None if overlay is None else data_url(overlay)
        elif overlays == "sheet":
            caption_record["sheet"] = data_url(contact_sheet(photo.image, caption))
    return record


def overlay_image(result: Captioned, kind: str, word: int | None) -> bytes:
    """The overlays of the best caption: an animation ("gif"), one word or a contact sheet ("png").

    Raises:
        OptionsError: there is no such word, or it has no attention map.
    """
    image, caption = result.photo.image, result.captions[0]
    if kind == "gif":
        return animated_gif(image, caption)
    return encode_png(contact_sheet(image, caption) if word is None else word_overlay(image, caption, word))


def model_response(captioner: Captioner, limits: ImageLimits, max_bytes: int) -> dict[str, Any]:
    """The model card as data, as ``GET /v1/model`` returns it."""
    info = captioner.info
    return {
        "name": info.name,
        "sha256": info.sha256,
        "vocabulary_size": len(captioner.vocabulary),
        "attention": captioner.config.attention,
        "scores": info.scores,
        "licence": info.licence,
        "trained_on": info.trained_on,
        "limits": {"max_bytes": max_bytes, **asdict(limits)},
    }
