"""Every error as application/problem+json (RFC 9457). The status of each class of error is decided here."""

import json
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, InternalServerError

from model import (
    CaptioningError,
    EmptyImageError,
    ImageLimitError,
    NonFiniteError,
    OptionsError,
    UndecodableImageError,
    UnsupportedImageError,
)
from service.errors import BusyError
from service.web.context import current_context
from service.web.response_schemas import PROBLEM_TYPE

# Class, status, type, title. Anything else is a 500 without details.
PROBLEMS = (
    (EmptyImageError, 400, "empty-image", "Empty image"),
    (UnsupportedImageError, 415, "unsupported-image", "Unsupported image type"),
    (UndecodableImageError, 422, "undecodable-image", "Corrupt image"),
    (ImageLimitError, 422, "image-limit", "Image too large or too small"),
    (OptionsError, 400, "option", "Invalid option"),
    (NonFiniteError, 500, "non-finite-output", "Output is not finite"),
    (BusyError, 503, "busy", "Service busy"),
)
KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


def register_problems(app: Flask) -> None:
    """Let ``app`` answer every error, including those of the routing, with a problem."""
    app.register_error_handler(CaptioningError, _captioning_problem)
    app.register_error_handler(HTTPException, _http_problem)


def problem_of(error: CaptioningError) -> dict[str, Any]:
    """The problem record of ``error``, which the trace of the request keeps too.

    Raises:
        CaptioningError: ``error`` itself, if no class of ``PROBLEMS`` fits.
    """
    for kind, status, name, title in PROBLEMS:
        if isinstance(error, kind):
            return _problem(f"/problems/{name}", title, status, str(error))
    raise error


def _captioning_problem(error: CaptioningError) -> Response:
    response = _as_response(problem_of(error))
    if isinstance(error, BusyError):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _http_problem(error: HTTPException) -> Response:
    detail = (error.description or "").replace("\n", " ")
    if isinstance(error, InternalServerError):
        detail = "Internal server error."
    response = _as_response(_problem("about:blank", error.name, error.code or 500, detail))
    for name, value in error.get_headers():
        if name in KEPT_HEADERS:
            response.headers[name] = value
    return response


def _problem(kind: str, title: str, status: int, detail: str) -> dict[str, Any]:
    context = current_context()
    problem = {"type": kind, "title": title, "status": status, "detail": detail, "request_id": context.id}
    context.problems.append(problem)
    return problem


def _as_response(problem: dict[str, Any]) -> Response:
    return Response(json.dumps(problem), status=problem["status"], content_type=PROBLEM_TYPE)
