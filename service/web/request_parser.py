"""Parses a request into its options and uploads, by the schema of its route.

Raises ``BadRequest`` for a malformed request and ``OptionsError`` for an invalid option. Decodes no image.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import IO, Any, NoReturn

from flask import Request, current_app, request
from marshmallow import Schema, ValidationError, fields
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge, UnsupportedMediaType

from model import OptionsError
from service.web.request_schemas import IMAGE_FIELD, MAX_IMAGES, quoted

MAX_FORM_PARTS = MAX_IMAGES + 10
# Far longer than any option. Werkzeug applies this limit also to the chunks of a file, a little over 64 KiB:
# a smaller one would reject photos.
MAX_FIELD_BYTES = 100_000

_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
_UPLOAD = "Send the photo as multipart/form-data, in a field named image, with a file name."
REPEATED = "The option {} is given more than once."


class InMemoryRequest(Request):
    """A request whose uploads stay in memory; the limit on its body bounds them."""

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> IO[bytes]:
        return BytesIO()


def check_body() -> None:
    """Reject, before reading it, a body that is not a form, has no Content-Length or is too long.

    A chunked body has no Content-Length, and Werkzeug would silently truncate a raw one at the limit.
    """
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    length = request.content_length
    if length is None:
        raise LengthRequired("Missing Content-Length; chunked bodies are not accepted.")
    if length > limit:
        raise RequestEntityTooLarge(f"The request has {length} bytes; the maximum is {limit}.")
    if length and request.mimetype not in _FORM_TYPES:
        raise UnsupportedMediaType(
            "The body is not a form; send the photo as multipart/form-data, in a field named image."
        )


class StrictParser(FlaskParser):
    """Rejects options that are unknown or repeated, and files that are not expected."""

    def load_querystring(self, req: Request, schema: Schema) -> dict[str, str]:
        """The options of the query."""
        return _options(req.args.items(multi=True), schema)

    def load_files(self, req: Request, schema: Schema) -> dict[str, Any]:
        """The options of the form, and ``image``: its upload, or the list of them."""
        given: dict[str, Any] = _options(_form_of(req), schema)
        parts = req.files.getlist(IMAGE_FIELD)
        if unexpected := [name for name in req.files if name != IMAGE_FIELD]:
            raise BadRequest(f"Unexpected file {quoted(unexpected[0] or '')}; the field must be named image.")
        if not parts:
            raise BadRequest(f"The file image is missing. {_UPLOAD}")
        if isinstance(schema.fields[IMAGE_FIELD], fields.List):
            maximum, given[IMAGE_FIELD] = MAX_IMAGES, parts
        else:
            maximum, given[IMAGE_FIELD] = 1, parts[0]
        if len(parts) > maximum:
            raise BadRequest(f"The form has {len(parts)} files named image; the maximum is {maximum}.")
        return given

    def handle_error(self, error: ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise the first message as an ``OptionsError``."""
        message: Any = error.messages
        while not isinstance(message, str):  # by location, by field
            message = next(iter(message.values() if isinstance(message, dict) else message))
        raise OptionsError(message)


def _form_of(req: Request) -> Iterable[tuple[str, str]]:
    try:
        return req.form.items(multi=True)
    except RequestEntityTooLarge:
        raise RequestEntityTooLarge(
            f"The form has more than {MAX_FORM_PARTS} fields, or a field over {MAX_FIELD_BYTES} bytes."
        ) from None


def _options(pairs: Iterable[tuple[str, str]], schema: Schema) -> dict[str, str]:
    """The options by name, each known to the schema and given once."""
    known = [name for name in schema.fields if name != IMAGE_FIELD]
    given: dict[str, str] = {}
    for name, value in pairs:
        if not name:
            raise BadRequest("A form field has no name; every field must have one.")
        if name == IMAGE_FIELD:
            raise BadRequest(f"The field image is text, not a file. {_UPLOAD}")
        if name not in known:
            valid = f"valid are {', '.join(known)}" if known else "this route has none"
            raise OptionsError(f"Unknown option {quoted(name)}; {valid}.")
        if name in given:
            raise OptionsError(REPEATED.format(name))
        given[name] = value
    return given
