"""The options of every route, for validation and for the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flask_smorest.fields import Upload
from marshmallow import Schema, ValidationError, fields, validate

from model import MAX_BEAM_SIZE, MOST_TOKENS

IMAGE_FIELD = "image"
DECODING_FIELDS = ("beam_size", "num_captions", "max_length")
MAX_IMAGES = 16  # in a request
OVERLAYS = ("words", "sheet", "none")
FORMATS = ("png", "gif")

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_QUOTED_CHARACTERS = 40  # of an invalid value in an error message


def quoted(value: str) -> str:
    """A value of the client for an error message: quoted and truncated."""
    return repr(value[:_QUOTED_CHARACTERS])


class WholeNumber(fields.Integer):
    """A whole number in decimal digits, within a range."""

    def __init__(self, low: int, high: int, meaning: str) -> None:
        self._low, self._high = low, high
        super().__init__(validate=validate.Range(low, high), metadata={"description": meaning})

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = int(value) if _WHOLE_NUMBER.fullmatch(value) else None
        if number is None or not self._low <= number <= self._high:
            given = quoted(value) if number is None else number
            raise ValidationError(
                f"{attr} is {given}; it must be a whole number from {self._low} to {self._high}."
            )
        return number


class Choice(fields.String):
    """One of a few words."""

    def __init__(self, words: Sequence[str], meaning: str) -> None:
        self._words = words
        super().__init__(validate=validate.OneOf(words), metadata={"description": meaning})

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value not in self._words:
            raise ValidationError(f"{attr} is {quoted(value)}; it must be one of {', '.join(self._words)}.")
        return value


class DecodingFields(Schema):
    """Decoding options."""

    beam_size = WholeNumber(1, MAX_BEAM_SIZE, "beam size; default 3")
    num_captions = WholeNumber(1, MAX_BEAM_SIZE, "captions per photo, at most beam_size; default 1")
    max_length = WholeNumber(1, MOST_TOKENS, "maximum length in tokens; default set by the model")


class CaptionFields(DecodingFields):
    """Options of /v1/captions."""

    overlays = Choice(OVERLAYS, "images: one per word, a contact sheet per caption, or none; default words")


class OverlayFields(DecodingFields):
    """Options of /v1/overlays."""

    word = WholeNumber(0, MOST_TOKENS, "index of the only word to draw, from 0; default all")
    format = Choice(FORMATS, "png, or gif for an animation word by word; default png")


def _upload() -> Upload:
    return Upload(
        required=True,
        metadata={"description": "JPEG, PNG, WebP, GIF (first frame) or BMP, detected from the content"},
    )


class CaptionForm(CaptionFields):
    """A photo and the options of /v1/captions."""

    image = _upload()


class OverlayForm(OverlayFields):
    """A photo and the options of /v1/overlays."""

    image = _upload()


class PhotoForm(Schema):
    """A photo."""

    image = _upload()


class BatchFields(DecodingFields):
    """Options of /v1/captions:batch: no images, which would be hundreds in a response."""

    overlays = Choice(("none",), "none; images are only drawn for single photos")


class BatchForm(BatchFields):
    """Photos and the options of /v1/captions:batch."""

    image = fields.List(_upload(), required=True, validate=validate.Length(1, MAX_IMAGES))
