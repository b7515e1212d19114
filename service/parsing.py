"""From a request to the bytes of its photograph and its options.

What is malformed raises ``BadRequest``, what is out of range ``OptionsError``. Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from flask import current_app, request
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge, UnsupportedMediaType

from model import DecodingOptions, OptionsError

IMAGE_FIELD = "image"
DECODING_FIELDS = ("beam_size", "num_captions", "max_length")
MAX_FORM_PARTS = 10
# No option is this long. Werkzeug also holds what it reads of a file at a time, 64 KiB and a little, to this
# limit: a smaller one would refuse photographs.
MAX_FIELD_BYTES = 100_000

_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")
_SHOWN_CHARACTERS = 40  # of a wrong value, in the message about it


def check_body() -> None:
    """Refuse, before reading it, a body that is not a form, has no stated length or is too long.

    A chunked body states no length, and Werkzeug would silently cut a raw one at the limit.
    """
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    length = request.content_length
    if length is None:
        raise LengthRequired("Send a Content-Length header; bodies in chunks are not accepted.")
    if length > limit:
        raise RequestEntityTooLarge(f"The request has {length} bytes; at most {limit} are accepted.")
    if length and request.mimetype not in _FORM_TYPES:
        raise UnsupportedMediaType("Send the photograph as multipart/form-data, in a field named image.")


def read_image() -> bytes:
    """The bytes of the one file in the field ``image``."""
    if IMAGE_FIELD in request.values:
        raise BadRequest("The field image is text; it must be an uploaded file, with a file name.")
    parts = request.files.getlist(IMAGE_FIELD)
    if strays := [name for name in request.files if name != IMAGE_FIELD]:
        raise BadRequest(f"The form has a file named {shown(strays[0])}; it must have one, named image.")
    if len(parts) != 1:
        raise BadRequest(f"The form has {len(parts)} files named image; it must have exactly one.")
    data: bytes = parts[0].read()
    return data


def read_fields(known: Collection[str]) -> dict[str, str]:
    """The options of the request, from its query and its form.

    Raises:
        OptionsError: an option is unknown or given twice.
    """
    given: dict[str, str] = {}
    for name, value in _named_values():
        if name not in known:
            raise OptionsError(f"The option {shown(name)} is unknown; known are {', '.join(known)}.")
        if name in given:
            raise OptionsError(f"The option {name} is given twice; give it once.")
        given[name] = value
    return given


def decoding_options(given: dict[str, str]) -> DecodingOptions:
    """How to search, by the fields in ``given``.

    Raises:
        OptionsError: a field is not a whole number in its range.
    """
    # What is no number goes in as it is: the check of the ranges refuses it by name, with the range.
    values: dict[str, Any] = {
        name: int(given[name]) if _WHOLE_NUMBER.fullmatch(given[name]) else given[name][:_SHOWN_CHARACTERS]
        for name in DECODING_FIELDS
        if name in given
    }
    return DecodingOptions(**values)


def choice(given: dict[str, str], name: str, allowed: Collection[str], default: str) -> str:
    """The value of a field that has a few words to choose from.

    Raises:
        OptionsError: it is none of ``allowed``.
    """
    value = given.get(name, default)
    if value not in allowed:
        raise OptionsError(f"{name} is {shown(value)}; it must be one of {', '.join(allowed)}.")
    return value


def word_index(given: dict[str, str]) -> int | None:
    """Which word to draw, counted from 0, or None for all of them.

    Raises:
        OptionsError: it is not a whole number.
    """
    value = given.get("word")
    if value is not None and not _WHOLE_NUMBER.fullmatch(value):
        raise OptionsError(f"word is {shown(value)}; it must be a whole number, 0 for the first word.")
    return None if value is None else int(value)


def shown(value: str) -> str:
    """A value of the client as it appears in a message: quoted and not too long."""
    return repr(value[:_SHOWN_CHARACTERS])


def _named_values() -> list[tuple[str, str]]:
    """Every option with its value; a name given twice is here twice."""
    try:
        pairs = [*request.args.items(multi=True), *request.form.items(multi=True)]
    except RequestEntityTooLarge:
        raise RequestEntityTooLarge(
            f"The form has more than {MAX_FORM_PARTS} fields, or more than {MAX_FIELD_BYTES} bytes of text."
        ) from None
    return [(name, value) for name, value in pairs if name != IMAGE_FIELD]
