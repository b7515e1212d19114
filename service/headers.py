"""The headers every answer carries: the id of the request, its stages, and what a browser may do with it."""

from __future__ import annotations

import re
from uuid import uuid4

from flask import Flask, Response, g, request

from service.stages import server_timing

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Anything else could forge lines of a log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def register_headers(app: Flask) -> None:
    """Let every answer of ``app``, errors too, carry these headers."""
    app.before_request(_name_request)
    app.after_request(_add_headers)


def _name_request() -> None:
    sent = request.headers.get("X-Request-Id", "")
    g.stages = {}
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid4().hex


def _add_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    response.headers["X-Request-Id"] = g.request_id
    if g.stages:
        response.headers["Server-Timing"] = server_timing()
    response.headers.setdefault("Cache-Control", "no-store")  # static files have their own
    return response
