"""JSON logs on standard error: one line for every request, and for every other event.

No photo, file name, query or client address is ever logged.
"""

import logging
from typing import Any

from flask import Response, g, has_request_context, request
from pythonjsonlogger.json import JsonFormatter

from service.web.context import RequestContext

_PROBES = ("/healthz", "/readyz", "/metrics")  # requested every few seconds; logged only if they fail
# These messages of gunicorn continue with the address, the query or a header of the request.
_SENSITIVE_MESSAGES = ("Invalid request", "Error handling request")

logger = logging.getLogger("service.access")


class LineFormatter(JsonFormatter):
    """A record as a line of JSON: time, level, logger, message and, during a request, its id."""

    def __init__(self) -> None:
        super().__init__(
            ("levelname", "name", "message"),
            timestamp="ts",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Add the id of the request that this thread is serving."""
        if has_request_context() and "context" in g:
            log_data["request_id"] = g.context.id
        return log_data


class GunicornFilter(logging.Filter):
    """Improves what gunicorn logs.

    Removes the client's data from a request it could not parse or serve, and says which setting to change if
    it cannot listen.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        for message in _SENSITIVE_MESSAGES:
            if str(record.msg).startswith(message):
                record.msg, record.args = message, ()
        if record.msg == "Can't connect to %s":
            record.msg = (
                "Cannot listen on %s; set CAPTION_BIND to a free port and an address of this computer."
            )
        return True


def log_request(context: RequestContext, response: Response) -> None:
    """Log a request that is answered."""
    route = request.url_rule.rule if request.url_rule else "none"
    if route in _PROBES and response.status_code < 300:
        return
    line: dict[str, Any] = {
        "route": route,
        "method": request.method,
        "code": response.status_code,
        "ms": _milliseconds(context.elapsed),
        "stages": {stage: _milliseconds(seconds) for stage, seconds in context.timings.items()},
        "bytes": request.content_length or 0,
    }
    if context.photos:
        line["photographs"] = context.photos
    if context.problems and response.status_code >= 400:
        problem = context.problems[-1]
        line["problem"] = problem["type"] if problem["type"] != "about:blank" else problem["title"]
    logger.info("request", extra=line)


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)
