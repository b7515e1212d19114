"""The options of every route, for validation and for the OpenAPI document."""

import re
from collections.abc import Collection
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
_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
_QUOTED_CHARACTERS = 40  # of an invalid value in an error message


def quoted(value: str) -> str:
    """A value of the client for an error message: quoted and truncated."""
    return repr(value[:_QUOTED_CHARACTERS])


def parsed(text: str, kind: type) -> Any:
    """``text`` as an int, float or bool, or, if it is not one, as it is but truncated."""
    if kind is bool:
        return _TRUTH.get(text.lower(), text[:_QUOTED_CHARACTERS])
    is_number = kind in _NUMBERS and _NUMBERS[kind].fullmatch(text)
    return kind(text) if is_number else text[:_QUOTED_CHARACTERS]


class OptionField(fields.Field[Any]):
    """An option, parsed and validated."""

    def __init__(self, option: Option, default: Any = None) -> None:
        self._option = option
        documented: dict[str, Any] = {"type": _JSON_TYPES[option.kind], "description": option.help}
        if default is not None:
            documented["default"] = default
        if option.kind in _NUMBERS:
            documented |= {"minimum": option.low, "maximum": option.high}
        if option.choices:
            documented["enum"] = list(option.choices)
        super().__init__(metadata=documented)

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> Any:
        found = parsed(value, self._option.kind)
        if self._option.allows(found):
            return found
        raise ValidationError(f"{attr} is {found!r}; it must be {self._option.valid}.")


def _choice(words: Collection[str], meaning: str) -> OptionField:
    return OptionField(Option(kind=str, choices=words, help=meaning))


class DecodingFields(Schema):
    """Decoding options."""

    class Meta:
        include = {
            name: OptionField(known, getattr(DecodingOptions(), name))
            for name, known in options_of(DecodingOptions).items()
        }


class CaptionFields(DecodingFields):
    """Options of /v1/captions."""

    overlays = _choice(OVERLAYS, "images: one per word, a contact sheet per caption, or none; default words")


class OverlayFields(DecodingFields):
    """Options of /v1/overlays."""

    word = OptionField(
        Option(kind=int, low=0, high=MAX_TOKENS, help="index of the only word to draw, from 0; default all")
    )
    format = _choice(FORMATS, "png, or gif for an animation word by word; default png")


class BatchFields(DecodingFields):
    """Options of /v1/captions:batch: no images, which would be hundreds in a response."""

    overlays = _choice(("none",), "none; images are only drawn for single photos")


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
