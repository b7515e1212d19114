"""The options of every route, for validation and for the OpenAPI document."""

import re
from collections.abc import Sequence
from typing import Any

from flask_smorest.fields import Upload
from marshmallow import Schema, ValidationError, fields, validate

from model import MAX_TOKENS, DecodingOptions
from model.options import Option, options_of

IMAGE_FIELD = "image"
MAX_IMAGES = 16  # in a request
OVERLAYS = ("words", "sheet", "none")
FORMATS = ("png", "gif")

_NUMBERS = {
    int: re.compile(r"-?[0-9]{1,15}", re.ASCII),
    float: re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII),
}
_TRUTH = {"true": True, "false": False}
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean"}
_QUOTED_CHARACTERS = 40  # of an invalid value in an error message


def quoted(value: str) -> str:
    """A value of the client for an error message: quoted and truncated."""
    return repr(value[:_QUOTED_CHARACTERS])


def parsed(text: str, kind: type) -> Any:
    """``text`` as an int, float or bool, or, if it is not one, as it is but truncated."""
    if kind is bool:
        return _TRUTH.get(text.lower(), text[:_QUOTED_CHARACTERS])
    return kind(text) if _NUMBERS[kind].fullmatch(text) else text[:_QUOTED_CHARACTERS]


class DecodingField(fields.Field[Any]):
    """A field of ``DecodingOptions``, which validates it; here it is only parsed."""

    def __init__(self, option: Option, default: Any) -> None:
        self._kind = option.kind
        documented: dict[str, Any] = {"type": _JSON_TYPES[option.kind], "description": option.help}
        if default is not None:
            documented["default"] = default
        if option.kind is not bool:
            documented |= {"minimum": option.low, "maximum": option.high}
        super().__init__(metadata=documented)

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return parsed(value, self._kind)


class WholeNumber(fields.Integer):
    """A whole number in decimal digits, within a range."""

    def __init__(self, low: int, high: int, meaning: str) -> None:
        self._low, self._high = low, high
        super().__init__(validate=validate.Range(low, high), metadata={"description": meaning})

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = parsed(value, int)
        if isinstance(number, int) and self._low <= number <= self._high:
            return number
        raise ValidationError(
            f"{attr} is {number!r}; it must be a whole number from {self._low} to {self._high}."
        )


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

    class Meta:
        include = {
            name: DecodingField(known, getattr(DecodingOptions(), name))
            for name, known in options_of(DecodingOptions).items()
        }


class CaptionFields(DecodingFields):
    """Options of /v1/captions."""

    overlays = Choice(OVERLAYS, "images: one per word, a contact sheet per caption, or none; default words")


class OverlayFields(DecodingFields):
    """Options of /v1/overlays."""

    word = WholeNumber(0, MAX_TOKENS, "index of the only word to draw, from 0; default all")
    format = Choice(FORMATS, "png, or gif for an animation word by word; default png")


class BatchFields(DecodingFields):
    """Options of /v1/captions:batch: no images, which would be hundreds in a response."""

    overlays = Choice(("none",), "none; images are only drawn for single photos")


def upload_form(options: type[Schema], *, several: bool = False) -> type[Schema]:
    """A form of ``options`` and an image, or several."""
    image: fields.Field[Any] = Upload(
        required=True,
        metadata={"description": "JPEG, PNG, WebP, GIF (first frame) or BMP, detected from the content"},
    )
    if several:
        image = fields.List(image, required=True, validate=validate.Length(1, MAX_IMAGES))
    return options.from_dict({IMAGE_FIELD: image}, name=options.__name__.replace("Fields", "Form"))


PhotoForm = upload_form(type("PhotoFields", (Schema,), {}))
