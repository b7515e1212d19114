"""Every error as application/problem+json (RFC 9457). Which class has which status is decided here."""

from __future__ import annotations

import json

from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, InternalServerError

from model import (
    CaptioningError,
    EmptyImageError,
    ImageLimitError,
    OptionsError,
    UndecodableImageError,
    UnsupportedImageError,
)

# Class, status, type, title. What is not here is our own fault: 500, and the client is told nothing.
PROBLEMS = (
    (EmptyImageError, 400, "empty-image", "The picture is empty"),
    (UnsupportedImageError, 415, "unsupported-image", "Not a picture of an accepted type"),
    (UndecodableImageError, 422, "undecodable-image", "The picture is damaged"),
    (ImageLimitError, 422, "image-limit", "The picture is too large or too small"),
    (OptionsError, 400, "option", "An option is not as it must be"),
)


def register_errors(app: Flask) -> None:
    """Let ``app`` answer every error, its own and those of the routing, as a problem."""
    app.register_error_handler(CaptioningError, _captioning_problem)
    app.register_error_handler(HTTPException, _http_problem)


def _captioning_problem(error: CaptioningError) -> Response:
    for kind, status, name, title in PROBLEMS:
        if isinstance(error, kind):
            return _problem(f"/problems/{name}", title, status, str(error))
    raise error


def _http_problem(error: HTTPException) -> Response:
    detail = (error.description or "").replace("\n", " ")
    if isinstance(error, InternalServerError):
        detail = "Something went wrong here; it is not the fault of the request."
    answer = _problem("about:blank", error.name, error.code or 500, detail)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            answer.headers[name] = value
    return answer


def _problem(kind: str, title: str, status: int, detail: str) -> Response:
    body = {"type": kind, "title": title, "status": status, "detail": detail, "request_id": g.request_id}
    return Response(json.dumps(body), status=status, content_type="application/problem+json")
