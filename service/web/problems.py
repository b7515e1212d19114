"""Every error as application/problem+json (RFC 9457). Which class has which status is decided here."""

from __future__ import annotations

import json
from typing import Any

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
from service.errors import BusyError
from service.web.response_schemas import PROBLEM_TYPE

# Class, status, type, title. What is not here is our own fault: 500, and the client is told nothing.
PROBLEMS = (
    (EmptyImageError, 400, "empty-image", "The picture is empty"),
    (UnsupportedImageError, 415, "unsupported-image", "Not a picture of an accepted type"),
    (UndecodableImageError, 422, "undecodable-image", "The picture is damaged"),
    (ImageLimitError, 422, "image-limit", "The picture is too large or too small"),
    (OptionsError, 400, "option", "An option is not as it must be"),
    (BusyError, 503, "busy", "The service is busy"),
)
KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


def register_errors(app: Flask) -> None:
    """Let ``app`` answer every error, its own and those of the routing, as a problem."""
    app.register_error_handler(CaptioningError, _captioning_problem)
    app.register_error_handler(HTTPException, _http_problem)


def problem_of(error: CaptioningError) -> dict[str, Any]:
    """The problem that ``error`` is, as a record; where it is none, it is raised again."""
    for kind, status, name, title in PROBLEMS:
        if isinstance(error, kind):
            return _problem(f"/problems/{name}", title, status, str(error))
    raise error


def _captioning_problem(error: CaptioningError) -> Response:
    answer = _as_response(problem_of(error))
    if isinstance(error, BusyError):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _http_problem(error: HTTPException) -> Response:
    detail = (error.description or "").replace("\n", " ")
    if isinstance(error, InternalServerError):
        detail = "Something went wrong here; it is not the fault of the request."
    answer = _as_response(_problem("about:blank", error.name, error.code or 500, detail))
    for name, value in error.get_headers():
        if name in KEPT_HEADERS:
            answer.headers[name] = value
    return answer


def _problem(kind: str, title: str, status: int, detail: str) -> dict[str, Any]:
    return {"type": kind, "title": title, "status": status, "detail": detail, "request_id": g.request_id}


def _as_response(problem: dict[str, Any]) -> Response:
    body = json.dumps(problem)
    return Response(body, status=problem["status"], content_type=PROBLEM_TYPE)
