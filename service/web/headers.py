"""The end of every request: log, metrics and headers, and the unread body of a rejected one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Flask, Response, request
from werkzeug.wsgi import get_input_stream

from service.web.context import begin_context, current_context
from service.web.logs import log_request
from service.web.metrics import observe_request

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob: data:; script-src 'self'; style-src 'self'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAUSE_SECONDS = 0.5  # between two bytes of a rejected body
DISCARD_SECONDS = 5  # a client that sends for longer may lose the response
_CHUNK = 16_384  # bytes


def register_headers(app: Flask) -> None:
    """Trace every request to ``app``. Register it first, so that it sees the final response."""
    app.before_request(begin_context)
    app.after_request(finish)


def finish(response: Response) -> Response:
    """Log and count an answered request, and complete its headers."""
    context = current_context()
    log_request(context, response)
    observe_request(context, response)
    _discard_body(response)
    response.headers.update(SECURITY_HEADERS)
    response.headers["X-Request-Id"] = context.id
    if timings := context.timings:
        stages = (f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in timings.items())
        response.headers["Server-Timing"] = ", ".join(stages)
    response.headers.setdefault("Cache-Control", "no-store")  # static files have their own
    return response


def _discard_body(response: Response) -> None:
    """Read the rest of a rejected body: closing on unread bytes resets the connection, response and all."""
    if response.status_code < 400:
        return
    stream = vars(request).get("stream") or get_input_stream(request.environ)  # a started one continues
    deadline = time.monotonic() + DISCARD_SECONDS
    # The response stands, whatever is wrong with the body.
    with suppress(Exception), _short_timeout(request.environ):
        while stream.read(_CHUNK) and time.monotonic() < deadline:
            pass


@contextmanager
def _short_timeout(environment: dict[str, Any]) -> Iterator[None]:
    """Stop reading from a client that pauses: it may wait for the response before it sends its body."""
    connection = environment.get("gunicorn.socket")
    if connection is None:
        yield
        return
    timeout = connection.gettimeout()
    connection.settimeout(PAUSE_SECONDS)
    try:
        yield
    finally:
        connection.settimeout(timeout)
