"""The OpenAPI document, generated from the routes and their schemas, and Swagger UI at /docs."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any

import flask_smorest
import flask_swagger_ui
from flask import Blueprint, Flask, Response, abort, render_template, send_from_directory
from marshmallow import Schema

from model import OptionsError
from service.web.request_parser import REPEATED, StrictParser
from service.web.request_schemas import upload_form
from service.web.response_schemas import PROBLEM_TYPE, Problem

API_VERSION = "1.0.0"
# The errors of every request for captions.
CAPTION_ERRORS = {
    HTTPStatus.BAD_REQUEST: "Malformed request or invalid option.",
    HTTPStatus.UNAUTHORIZED: "Missing or invalid API key.",
    HTTPStatus.LENGTH_REQUIRED: "Missing Content-Length.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Too many bytes, fields or files.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Unsupported image type, or not a form.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Corrupt image, or too large or too small.",
    HTTPStatus.TOO_MANY_REQUESTS: "Rate limit exceeded; retry after Retry-After seconds.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Busy or not ready; retry after Retry-After seconds.",
}
# Alternatives.
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_SWAGGER = Path(flask_swagger_ui.__file__).parent / "dist"
_SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


class ApiBlueprint(flask_smorest.Blueprint):  # type: ignore[misc]  # the library has no types
    """Routes shown in the OpenAPI document."""

    ARGUMENTS_PARSER = StrictParser()


class Api(flask_smorest.Api):  # type: ignore[misc]
    """The OpenAPI document, with problems in place of the errors of the library."""

    DEFAULT_ERROR_RESPONSE_NAME = None  # each view lists its errors

    def _register_error_handlers(self) -> None:
        """Leave errors to ``service.web.problems``."""

    def _register_responses(self) -> None:
        """Define a problem response for each status, under its name."""
        for status, meaning in CAPTION_ERRORS.items():
            content = {PROBLEM_TYPE: {"schema": Problem}}
            self.spec.components.response(
                status.name, {"description": meaning, "content": content}, lazy=True
            )


def may_fail(blueprint: ApiBlueprint, *statuses: HTTPStatus) -> Callable[[Any], Any]:
    """Decorate a view that may respond with these errors."""

    def document(view: Any) -> Any:
        for status in statuses:
            view = blueprint.alt_response(int(status), status.name)(view)
        return view

    return document


def takes_images(
    blueprint: ApiBlueprint, options: type[Schema], *, several: bool = False
) -> Callable[[Any], Any]:
    """Decorate a view of ``options``, given as query parameters or form fields, and of an upload, or several.

    The view gets those given as a dictionary, with the upload, or the list of them, under ``image``.
    """

    def decorate(view: Any) -> Any:
        @wraps(view)
        def merge(query: dict[str, Any], form: dict[str, Any]) -> Any:
            if repeated := [name for name in query if name in form]:
                raise OptionsError(REPEATED.format(repeated[0]))
            return view(query | form)

        documented = blueprint.arguments(upload_form(options, several=several), location="files")(merge)
        documented = blueprint.arguments(options, location="query")(documented)
        return may_fail(blueprint, *CAPTION_ERRORS)(documented)

    return decorate


browser = Blueprint("browser", __name__, url_prefix="/docs")


@browser.get("")
def docs() -> str:
    """Swagger UI."""
    return render_template("docs.html")


@browser.get("/<name>")
def docs_file(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in _SWAGGER_FILES:
        abort(404)
    return send_from_directory(_SWAGGER, name, max_age=3600)


def register_api(app: Flask, *blueprints: ApiBlueprint, needs_key: bool) -> None:
    """Serve ``blueprints``, /openapi.json and /docs; the document says whether requests need an API key."""
    app.config.update(
        API_TITLE="Sightline", API_VERSION=API_VERSION, OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/"
    )
    api = Api(app)
    if needs_key:
        for name, scheme in KEY_SCHEMES.items():
            api.spec.components.security_scheme(name, scheme)
        api.spec.options["security"] = [{name: []} for name in KEY_SCHEMES]
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    app.register_blueprint(browser)
