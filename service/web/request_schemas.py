"""What may be asked: the options of every route, as they are checked and as the specification shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flask_smorest.fields import Upload
from marshmallow import Schema, ValidationError, fields, validate

from model import MAX_BEAM_SIZE, MOST_TOKENS

IMAGE_FIELD = "image"
DECODING_FIELDS = ("beam_size", "num_captions", "max_length")
MOST_PHOTOS = 16  # in one request
OVERLAYS = ("words", "sheet", "none")
FORMATS = ("png", "gif")

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_SHOWN_CHARACTERS = 40  # of a wrong value, in the message about it


def shown(value: str) -> str:
    """A value of the client as it appears in a message: quoted and not too long."""
    return repr(value[:_SHOWN_CHARACTERS])


class WholeNumber(fields.Integer):
    """A whole number in decimal digits, within bounds."""

    def __init__(self, low: int, high: int, meaning: str) -> None:
        self._low, self._high = low, high
        super().__init__(validate=validate.Range(low, high), metadata={"description": meaning})

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = int(value) if _WHOLE_NUMBER.fullmatch(value) else None
        if number is None or not self._low <= number <= self._high:
            given = shown(value) if number is None else number
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
            raise ValidationError(f"{attr} is {shown(value)}; it must be one of {', '.join(self._words)}.")
        return value


class DecodingFields(Schema):
    """How to search."""

    beam_size = WholeNumber(1, MAX_BEAM_SIZE, "hypotheses that are searched; 3 if not given")
    num_captions = WholeNumber(1, MAX_BEAM_SIZE, "captions, at most beam_size; 1 if not given")
    max_length = WholeNumber(1, MOST_TOKENS, "words of the longest caption; the model's own if not given")


class CaptionFields(DecodingFields):
    """How to caption."""

    overlays = Choice(OVERLAYS, "pictures: of every word, one of every caption, or none; words if not given")


class OverlayFields(DecodingFields):
    """What to draw."""

    word = WholeNumber(0, MOST_TOKENS, "the one word to draw, counted from 0; all if not given")
    format = Choice(FORMATS, "png, or gif for a walk through the words; png if not given")


def _photo() -> Upload:
    return Upload(
        required=True, metadata={"description": "JPEG, PNG, WebP, GIF (first frame) or BMP, by its content"}
    )


class CaptionForm(CaptionFields):
    """A photo, and how to caption it."""

    image = _photo()


class OverlayForm(OverlayFields):
    """A photo, and what to draw."""

    image = _photo()


class PhotoForm(Schema):
    """A photo."""

    image = _photo()


class BatchFields(DecodingFields):
    """How to caption several photos: without pictures, which would be hundreds in one answer."""

    overlays = Choice(("none",), "pictures are drawn of one photo a request")


class BatchForm(BatchFields):
    """Photos, and how to caption them."""

    image = fields.List(_photo(), required=True, validate=validate.Length(1, MOST_PHOTOS))
