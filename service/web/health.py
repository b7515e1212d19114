"""Whether the process lives, and whether it can caption. Asking never waits for a photo."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, jsonify
from werkzeug.exceptions import ServiceUnavailable

from service.web.captioning import current_inference
from service.web.openapi import ApiBlueprint, refuses
from service.web.response_schemas import StatusRecord

ASK_AGAIN_SECONDS = 2

health = ApiBlueprint("health", __name__)


@health.get("/healthz")
@health.doc(security=[])
@health.response(200, StatusRecord)
def healthz() -> Response:
    """Whether the process answers; it touches nothing that could be busy."""
    return jsonify(status="ok")


@health.get("/readyz")
@health.doc(security=[])
@refuses(health, HTTPStatus.SERVICE_UNAVAILABLE)
@health.response(200, StatusRecord)
def readyz() -> Response:
    """Whether this process captions. If it has not yet, or failed at it, asking makes it try."""
    if reason := current_inference().why_not_ready():
        raise ServiceUnavailable(reason, retry_after=ASK_AGAIN_SECONDS)
    return jsonify(status="ready")
