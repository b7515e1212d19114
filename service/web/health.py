"""Liveness and readiness. Neither waits for inference."""

from http import HTTPStatus

from flask import Response, jsonify
from werkzeug.exceptions import ServiceUnavailable

from service.web.context import current_worker
from service.web.openapi import ApiBlueprint, may_fail
from service.web.response_schemas import StatusRecord

health = ApiBlueprint("health", __name__)


@health.get("/healthz")
@health.doc(security=[])
@health.response(200, StatusRecord)
def healthz() -> Response:
    """Liveness: whether the process responds."""
    return jsonify(status="ok")


@health.get("/readyz")
@health.doc(security=[])
@may_fail(health, HTTPStatus.SERVICE_UNAVAILABLE)
@health.response(200, StatusRecord)
def readyz() -> Response:
    """Readiness: whether this process can caption. If it has not yet, or failed, it tries again."""
    if reason := current_worker().unready_reason():
        raise ServiceUnavailable(reason, retry_after=2)
    return jsonify(status="ready")
