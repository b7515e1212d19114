"""One line of JSON for every request and for everything else there is to tell, on standard error.

No photo, file name, query or address of a client is ever written.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from flask import Flask, Response, g, has_request_context, request
from pythonjsonlogger.json import JsonFormatter

from model import Caption, Photo
from service.web.context import seconds_since_arrival
from service.web.response_schemas import PROBLEM_TYPE

SHOWN_DIGITS = 12  # of a sha256: enough to find a photo again, in hexadecimal
_UNREMARKABLE = ("/healthz", "/readyz", "/metrics")  # asked every few seconds; told only if they fail
# What gunicorn says in these words goes on with the address, the query or a header of the request.
_CUT_AFTER = ("Invalid request", "Error handling request")

logger = logging.getLogger("service.access")


class LineFormatter(JsonFormatter):
    """A record as a line: when, how grave, by whom, what; in a request also its id."""

    def __init__(self) -> None:
        super().__init__(
            ("levelname", "name", "message"),
            timestamp="ts",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """The fields of the line, with the id of the request that the thread is answering."""
        if has_request_context() and "request_id" in g:
            log_data["request_id"] = g.request_id
        return log_data


class Discreet(logging.Filter):
    """Cuts off what gunicorn tells of a request that it could not hand on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, without the part that is the client's own."""
        for words in _CUT_AFTER:
            if str(record.msg).startswith(words):
                record.msg, record.args = words, ()
        return True


def register_logs(app: Flask) -> None:
    """Log every request to ``app`` when it is answered. What becomes of the lines is not decided here."""
    app.before_request(_begin)
    app.after_request(_log_answer)


def log_photo(data: bytes, photo: Photo, captions: Sequence[Caption]) -> None:
    """Let the line of this request tell of a photo; ``data`` is the upload."""
    g.photos.append(
        {
            "width": photo.width,
            "height": photo.height,
            "format": photo.format,
            "sha256": sha256(data).hexdigest()[:SHOWN_DIGITS],
            "words": len(captions[0].text.split()),
        }
    )


def _begin() -> None:
    g.photos = []


def _log_answer(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "none"
    if route in _UNREMARKABLE and response.status_code < 300:
        return response
    line: dict[str, Any] = {
        "route": route,
        "method": request.method,
        "code": response.status_code,
        "ms": _milliseconds(seconds_since_arrival()),
        "stages": {name: _milliseconds(seconds) for name, seconds in g.stages.items()},
        "bytes": request.content_length or 0,
    }
    if g.photos:
        line["photographs"] = g.photos
    if response.content_type == PROBLEM_TYPE:
        problem = response.get_json()
        line["problem"] = problem["type"] if problem["type"] != "about:blank" else problem["title"]
    logger.info("request", extra=line)
    return response


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)
