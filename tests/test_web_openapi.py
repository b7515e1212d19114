"""The service against its OpenAPI document: generated requests, validated responses."""

import time
from functools import partial
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema
from schemathesis.transport.serialization import Binary
from support.bad_inputs import photo
from support.fake_captioner import FakeCaptioner
from werkzeug.test import stream_encode_multipart

from service.app import create_app
from service.config import ServiceConfig

KEY = "open-sesame"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
REFUSED = [400, 401, 404, 405, 411, 413, 415, 422]  # 411: a request without any body has no length either
WORDS = 4  # of the longest caption of FakeCaptioner
# The page, what it is made of, and what is for other programs than clients.
UNSPECIFIED = ("/", "/static/", "/examples/", "/docs", "/openapi.json", "/metrics")

# Good images, as a document cannot say what they are; bad ones are tried elsewhere.
schemathesis.openapi.format("binary", st.sampled_from(FORMATS).map(photo).map(Binary))


def specification(app: Flask) -> OpenApiSchema:
    """The document of a service that is ready."""
    client, deadline = app.test_client(), time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    config = schemathesis.Config.from_dict(
        {
            "checks": {"negative_data_rejection": {"expected-statuses": REFUSED}},
            "generation": {"with-security-parameters": False},  # keys are the affair of each test
        }
    )
    return schemathesis.openapi.from_wsgi("/openapi.json", app, config=config)


app = create_app(ServiceConfig(), FakeCaptioner())
open_service = specification(app)
locked_service = specification(create_app(ServiceConfig(api_key=KEY), FakeCaptioner()))


def breaks_a_rule_that_cannot_be_specified(case: schemathesis.Case) -> bool:
    """Rules on several options together; OpenAPI has words only for each by itself."""
    query, form = case.query or {}, case.body if isinstance(case.body, dict) else {}
    given = {**query, **form}
    return bool(
        set(query) & set(form)
        or number(given, "num_captions", 1) > number(given, "beam_size", 3)
        or number(given, "word", 0) >= WORDS
        or ("word" in given and given.get("format") == "gif")
    )


def number(given: dict[str, Any], name: str, default: int) -> int:
    value = str(given.get(name, default))
    return int(value) if value.isdecimal() else default


# A slow machine is no fault of the service, and the examples are the same every time.
unhurried = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)


@pytest.fixture(autouse=True)
def _forms_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client puts a large form into a temporary file, which it leaves to the garbage collector: a
    ResourceWarning at any time later, which is an error."""
    monkeypatch.setattr(
        "werkzeug.test.stream_encode_multipart", partial(stream_encode_multipart, use_tempfile=False)
    )


@open_service.parametrize()
@settings(unhurried, max_examples=20)
def test_service_conforms_to_openapi(case: schemathesis.Case) -> None:
    too_much = breaks_a_rule_that_cannot_be_specified(case)
    case.call_and_validate(excluded_checks=[positive_data_acceptance] if too_much else [])


@locked_service.parametrize()
@settings(unhurried, max_examples=5)
def test_service_with_api_key_conforms_to_openapi(case: schemathesis.Case) -> None:
    too_much = breaks_a_rule_that_cannot_be_specified(case)
    case.call_and_validate(
        headers={"X-API-Key": KEY}, excluded_checks=[positive_data_acceptance] if too_much else []
    )


def test_openapi_document_is_valid() -> None:
    open_service.validate()
    assert open_service.raw_schema["openapi"] == "3.1.0"


def test_every_client_route_is_in_openapi() -> None:
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    specified = set(open_service.raw_schema["paths"])
    assert {route for route in routes - specified if not is_unspecified(route)} == set()
    assert specified <= routes


def is_unspecified(route: str) -> bool:
    return route in UNSPECIFIED or any(route.startswith(f"{name.rstrip('/')}/") for name in UNSPECIFIED[1:])


def test_operations_have_summaries_and_error_responses() -> None:
    for path, operations in open_service.raw_schema["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"].endswith("."), path
            if method == "post":
                assert {"400", "411", "413", "415", "422", "503"} <= set(operation["responses"]), path
