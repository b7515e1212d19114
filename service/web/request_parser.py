"""From a request to its options and the bytes of its photos, each by the schema of its route.

What is malformed raises ``BadRequest``, what is out of range ``OptionsError``. Nothing is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import IO, Any, NoReturn

from flask import Request, current_app, request
from marshmallow import Schema, ValidationError, fields
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge, UnsupportedMediaType

from model import DecodingOptions, OptionsError
from service.web.request_schemas import DECODING_FIELDS, IMAGE_FIELD, MOST_PHOTOS, shown

MAX_FORM_PARTS = MOST_PHOTOS + 10
# No option is this long. Werkzeug also holds what it reads of a file at a time, 64 KiB and a little, to this
# limit: a smaller one would refuse photos.
MAX_FIELD_BYTES = 100_000

_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_NO_UPLOAD = "Send the photo as multipart/form-data, in a field named image, with a file name."


class InMemoryRequest(Request):
    """A request whose photos are never written to a disk; the limit on the body bounds them."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return BytesIO()


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
        raise UnsupportedMediaType("Send the photo as multipart/form-data, in a field named image.")


class StrictParser(FlaskParser):
    """Reads options and photos, and refuses what a route does not know or is given twice."""

    def load_querystring(self, req: Request, schema: Schema) -> dict[str, str]:
        """The options in the query."""
        return _options(req.args.items(multi=True), schema)

    def load_files(self, req: Request, schema: Schema) -> dict[str, Any]:
        """The options in the form, and in ``image`` its photo, or the list of them."""
        given: dict[str, Any] = _options(_form_of(req), schema)
        parts = req.files.getlist(IMAGE_FIELD)
        if strays := [name for name in req.files if name != IMAGE_FIELD]:
            raise BadRequest(f"The form has a file named {shown(strays[0] or '')}; only image may be one.")
        if not parts:
            raise BadRequest(f"The form has no file named image. {_NO_UPLOAD}")
        if isinstance(schema.fields[IMAGE_FIELD], fields.List):
            most, given[IMAGE_FIELD] = MOST_PHOTOS, parts
        else:
            most, given[IMAGE_FIELD] = 1, parts[0]
        if len(parts) > most:
            raise BadRequest(f"The form has {len(parts)} files named image; it may have {most}.")
        return given

    def handle_error(
        self,
        error: ValidationError,
        req: Request,
        schema: Schema,
        *,
        error_status_code: int | None = None,
        error_headers: Mapping[str, str] | None = None,
    ) -> NoReturn:
        """Refuse the request with the first sentence about it."""
        message: Any = error.messages
        while not isinstance(message, str):  # by location, by field
            message = next(iter(message.values() if isinstance(message, dict) else message))
        raise OptionsError(message)


def _form_of(req: Request) -> Iterable[tuple[str, str]]:
    try:
        return req.form.items(multi=True)
    except RequestEntityTooLarge:
        raise RequestEntityTooLarge(
            f"The form has more than {MAX_FORM_PARTS} fields, or more than {MAX_FIELD_BYTES} bytes of text."
        ) from None


def _options(pairs: Iterable[tuple[str, str]], schema: Schema) -> dict[str, str]:
    """Every option once, and none that the route does not have."""
    known = [name for name in schema.fields if name != IMAGE_FIELD]
    given: dict[str, str] = {}
    for name, value in pairs:
        if not name:
            raise BadRequest("A field of the form has no name; every field must have one.")
        if name == IMAGE_FIELD:
            raise BadRequest(f"The field image is text. {_NO_UPLOAD}")
        if name not in known:
            right = f"known are {', '.join(known)}" if known else "there are none"
            raise OptionsError(f"The option {shown(name)} is unknown; {right}.")
        if name in given:
            raise OptionsError(f"The option {name} is given twice; give it once.")
        given[name] = value
    return given


def merged(query: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the query and of the form together.

    Raises:
        OptionsError: one of them is in both.
    """
    if twice := [name for name in query if name in form]:
        raise OptionsError(f"The option {twice[0]} is given twice; give it once.")
    return {**query, **form}


def decoding_options(given: Mapping[str, Any]) -> DecodingOptions:
    """How to search, by those of the options in ``given`` that say so.

    Raises:
        OptionsError: they contradict one another.
    """
    return DecodingOptions(**{name: given[name] for name in DECODING_FIELDS if name in given})
