"""Cross-origin requests: which web pages may use the API from a browser. Off unless configured."""

import re

from flask import Flask, Response
from flask_cors import CORS

from service.config import ServiceConfig, listed

_RESPONSE_HEADERS = (
    *("X-Request-Id", "Server-Timing", "Retry-After"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
)


def register_cors(app: Flask, config: ServiceConfig) -> None:
    """Let pages of the configured origins use ``app``, without credentials."""
    origins = listed(config.cors_origins)
    if not origins:
        return
    # Escaped, or an IPv6 address in brackets would be taken for a regular expression.
    patterns = [re.compile(re.escape(origin) + r"\Z", re.IGNORECASE) for origin in origins]
    CORS(
        app,
        origins="*" if "*" in origins else patterns,
        methods=("GET", "POST"),
        allow_headers=("Authorization", "X-API-Key", "X-Request-Id"),
        expose_headers=_RESPONSE_HEADERS,
        max_age=600,  # seconds for which a browser caches the answer to a preflight
        send_wildcard=True,
        always_send=False,
        intercept_exceptions=False,  # errors pass through after_request here
        vary_header=False,
    )
    if "*" not in origins:
        app.after_request(_vary_by_origin)


def _vary_by_origin(response: Response) -> Response:
    """Keep shared caches from serving one origin's response to another, also for rejected origins."""
    response.vary.add("Origin")
    return response
