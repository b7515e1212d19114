"""The OpenAPI document, made from the routes with their options and answers, and its browser at /docs."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import flask_smorest
import flask_swagger_ui
from flask import Blueprint, Flask, Response, abort, render_template, send_from_directory

from service.web.request_parser import StrictParser
from service.web.response_schemas import PROBLEM_TYPE, Problem

API_VERSION = "1.0.0"
# What every request for captions may be answered with instead.
REFUSALS = {
    HTTPStatus.BAD_REQUEST: "Malformed, or an option is not as it must be.",
    HTTPStatus.UNAUTHORIZED: "The service asks for an API key, and this is not one.",
    HTTPStatus.LENGTH_REQUIRED: "There is no Content-Length.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "There are more bytes, fields or files than are accepted.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Not a picture of an accepted type, or not a form.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The picture is damaged, too large or too small.",
    HTTPStatus.TOO_MANY_REQUESTS: "This client asks too often; Retry-After says when to come again.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Busy, or not ready; Retry-After says when to come again.",
}
# Either will do.
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_BROWSER = Path(flask_swagger_ui.__file__).parent / "dist"
_BROWSER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


class ApiBlueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # the library has no types
    """Routes that the specification shows."""

    ARGUMENTS_PARSER = StrictParser()


class Api(flask_smorest.Api):  # type: ignore[misc]
    """The specification, with problems where the library has errors of its own."""

    DEFAULT_ERROR_RESPONSE_NAME = None  # a view says which problems it may answer with

    def _register_error_handlers(self) -> None:
        """Leave the errors to ``service.web.problems``."""

    def _register_responses(self) -> None:
        """Make the problems known by the names of their statuses."""
        for status, meaning in REFUSALS.items():
            content = {PROBLEM_TYPE: {"schema": Problem}}
            self.spec.components.response(
                status.name, {"description": meaning, "content": content}, lazy=True
            )


def refuses(blueprint: ApiBlueprint, *statuses: HTTPStatus) -> Callable[[Any], Any]:
    """A decorator of views: they may answer with these problems."""

    def document(view: Any) -> Any:
        for status in statuses:
            view = blueprint.alt_response(int(status), status.name)(view)
        return view

    return document


browser = Blueprint("browser", __name__, url_prefix="/docs")


@browser.get("")
def docs() -> str:
    """The specification, to read and to try."""
    return render_template("docs.html")


@browser.get("/<name>")
def docs_file(name: str) -> Response:
    """What the browser of the specification is made of."""
    if name not in _BROWSER_FILES:
        abort(404)
    return send_from_directory(_BROWSER, name, max_age=3600)


def register_specification(app: Flask, *blueprints: ApiBlueprint, asks_for_key: bool) -> None:
    """Serve ``blueprints``, /openapi.json and /docs, which say whether requests need the API key."""
    app.config.update(
        API_TITLE="Sightline", API_VERSION=API_VERSION, OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/"
    )
    api = Api(app)
    if asks_for_key:
        for name, scheme in KEY_SCHEMES.items():
            api.spec.components.security_scheme(name, scheme)
        api.spec.options["security"] = [{name: []} for name in KEY_SCHEMES]
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    app.register_blueprint(browser)
