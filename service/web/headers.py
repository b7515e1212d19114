"""What every answer goes through: the id of its request, its stages, what a browser may do with it.

An answer that refuses a request takes the rest of its body along.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from flask import Flask, Response, g, request
from werkzeug.wsgi import get_input_stream

from service.web.context import arrive, server_timing

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAUSE_SECONDS = 0.5  # between two bytes of a refused body
DISCARDING_SECONDS = 5  # who goes on sending for longer in spite of a refusal may lose it
_CHUNK = 16_384  # bytes
# Anything else could forge lines of a log.
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def register_headers(app: Flask) -> None:
    """Let every answer of ``app``, errors too, carry these headers."""
    app.before_request(_name_request)
    app.after_request(_add_headers)
    app.after_request(_discard_body)


def _name_request() -> None:
    sent = request.headers.get("X-Request-Id", "")
    arrive()
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid4().hex


def _discard_body(response: Response) -> Response:
    """Read the rest of a refused body: to close on unread bytes resets the connection, answer and all."""
    if response.status_code < 400:
        return response
    stream = vars(request).get("stream") or get_input_stream(request.environ)  # what reads it already goes on
    until = time.monotonic() + DISCARDING_SECONDS
    # The answer stands, whatever is wrong with the body.
    with suppress(Exception), _impatient(request.environ):
        while stream.read(_CHUNK) and time.monotonic() < until:
            pass
    return response


@contextmanager
def _impatient(environment: WSGIEnvironment) -> Iterator[None]:
    """Give up reading from a client that sends nothing: it may wait for the answer before it does."""
    connection = environment.get("gunicorn.socket")
    if connection is None:
        yield
        return
    usual = connection.gettimeout()
    connection.settimeout(PAUSE_SECONDS)
    try:
        yield
    finally:
        connection.settimeout(usual)


def _add_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    response.headers["X-Request-Id"] = g.request_id
    if g.stages:
        response.headers["Server-Timing"] = server_timing()
    response.headers.setdefault("Cache-Control", "no-store")  # static files have their own
    return response
