"""Who may ask, from where, and how often."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_captioner import FakeCaptioner, assert_problem, picture
from flask import Flask
from flask.testing import FlaskClient
from processes import free_port
from werkzeug.test import TestResponse

from service.app import create_app
from service.config import ServiceConfig
from service.web import access

CAPTION_ROUTES = ("/v1/captions", "/v1/captions:batch", "/v1/overlays", "/model/predict")
OPEN_ROUTES = ("/", "/v1/model", "/healthz", "/metrics", "/openapi.json", "/docs", "/model/metadata")


def application(**settings: Any) -> Flask:
    return create_app(ServiceConfig(**settings), FakeCaptioner())  # type: ignore[arg-type]


def caption(
    client: FlaskClient, route: str = "/v1/captions", address: str = "192.0.2.7", **headers: str
) -> TestResponse:
    """Ask for a caption as a client with this address; headers with ``_`` for ``-``."""
    return client.post(
        route,
        data={"image": (io.BytesIO(picture()), "a.jpg")},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        environ_base={"REMOTE_ADDR": address},
    )


# The key


@pytest.fixture(scope="module")
def locked() -> Flask:
    return application(api_key="open-sesame")


@pytest.mark.parametrize("route", CAPTION_ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer open-sesam"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic b3Blbi1zZXNhbWU6"},
        {"X-API-Key": "open-sesame2"},
        {"X-API-Key": "öpen"},
    ],
    ids=["none", "wrong", "empty", "basic", "longer", "foreign"],
)
def test_without_the_key_nobody_gets_a_caption(locked: Flask, route: str, headers: dict[str, str]) -> None:
    response = locked.test_client().post(
        route, data={"image": (io.BytesIO(picture()), "a.jpg")}, headers=headers
    )
    assert_problem(response, 401, "Authorization: Bearer")
    assert response.headers["WWW-Authenticate"].lower().startswith("bearer")


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer open-sesame"}, {"X_API_Key": "open-sesame"}], ids=["bearer", "own"]
)
@pytest.mark.parametrize("route", CAPTION_ROUTES)
def test_with_the_key_everybody_does(locked: Flask, route: str, headers: dict[str, str]) -> None:
    assert caption(locked.test_client(), route, **headers).status_code == 200


def test_a_key_may_hold_whatever_a_header_can() -> None:
    client = create_app(ServiceConfig(api_key="a=b,c==;d:e"), FakeCaptioner()).test_client()
    for headers in ({"Authorization": "bearer a=b,c==;d:e"}, {"X_API_Key": "a=b,c==;d:e"}):
        assert caption(client, "/v1/captions", **headers).status_code == 200


@pytest.mark.parametrize("route", OPEN_ROUTES)
def test_what_costs_nothing_needs_no_key(locked: Flask, route: str) -> None:
    assert locked.test_client().get(route).status_code == 200


def test_the_key_is_asked_for_before_the_body_is_looked_at(locked: Flask) -> None:
    response = locked.test_client().post("/v1/captions", data=b"{}", content_type="application/json")
    assert_problem(response, 401)


def test_by_default_nobody_is_asked_for_a_key() -> None:
    assert caption(application().test_client()).status_code == 200


# How often


@pytest.fixture
def limited() -> FlaskClient:
    return application(rate_limit="2/hour").test_client()


def test_who_asks_too_often_is_told_when_to_come_again(limited: FlaskClient) -> None:
    assert [caption(limited).status_code for _ in range(2)] == [200, 200]
    refused = caption(limited)
    assert_problem(refused, 429, "2/hour")
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit-Remaining"] == "0"


def test_the_answer_says_how_much_of_the_limit_is_left(limited: FlaskClient) -> None:
    headers = caption(limited).headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("2", "1")
    assert 0 < int(headers["RateLimit-Reset"]) <= 3600  # seconds, not the time of day
    assert "Retry-After" not in headers


def test_all_routes_of_captions_count_together(limited: FlaskClient) -> None:
    assert caption(limited, "/v1/overlays").status_code == 200
    assert caption(limited, "/model/predict").status_code == 200
    assert caption(limited, "/v1/captions:batch").status_code == 429


def test_what_costs_nothing_is_not_counted(limited: FlaskClient) -> None:
    for route in OPEN_ROUTES:
        answers = [limited.get(route) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit-Limit" not in answers[0].headers
    assert caption(limited).status_code == 200


def test_wrong_keys_count_so_that_guessing_is_slow() -> None:
    client = application(rate_limit="2/hour", api_key="open-sesame").test_client()
    assert [caption(client, X_API_Key="x").status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ("192.0.2.8", 200),
        ("::ffff:192.0.2.7", 429),  # the same, as a socket for both kinds of address says it
        ("2001:db8:1:2::1", 200),
    ],
)
def test_another_client_has_a_limit_of_its_own(limited: FlaskClient, other: str, status: int) -> None:
    assert {caption(limited).status_code for _ in range(2)} == {200}
    assert caption(limited, address=other).status_code == status


def test_the_many_addresses_of_one_network_are_one_client(limited: FlaskClient) -> None:
    addresses = ("2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff::3", "2001:db8:1:3::1")
    assert [caption(limited, address=address).status_code for address in addresses] == [200, 200, 429, 200]


def test_a_client_without_an_address_is_limited_too(limited: FlaskClient) -> None:
    assert [caption(limited, address="").status_code for _ in range(3)] == [200, 200, 429]


def test_by_default_there_is_no_limit() -> None:
    response = caption(application().test_client())
    assert "RateLimit-Limit" not in response.headers


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis that answers."""
    if not (program := shutil.which("redis-server")):
        pytest.skip("there is no redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
        process.terminate()


def test_processes_that_share_a_redis_count_together(redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = dict.fromkeys(access._REDIS_WAITS, 60)  # on a busy machine too, it is the Redis that counts
    monkeypatch.setattr(access, "_REDIS_WAITS", patient)
    clients = [application(rate_limit="3/hour", rate_limit_storage=redis).test_client() for _ in range(2)]
    statuses = [caption(clients[turn % 2]).status_code for turn in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_without_its_redis_a_process_counts_by_itself_and_nobody_gets_an_error() -> None:
    away = f"redis://127.0.0.1:{free_port()}"
    client = application(rate_limit="2/hour", rate_limit_storage=away).test_client()
    assert [caption(client).status_code for _ in range(3)] == [200, 200, 429]


# Pages of other origins


def preflight(client: FlaskClient, origin: str, route: str = "/v1/captions") -> TestResponse:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options(route, headers=asked | {"Access-Control-Request-Headers": "x-api-key"})


@pytest.fixture(scope="module")
def shared() -> Flask:
    return application(cors_origins="https://a.example, https://b.example:8443", api_key="k")


@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example:8443"])
def test_a_configured_origin_may_ask_and_read(shared: Flask, origin: str) -> None:
    before = preflight(shared.test_client(), origin)
    assert before.status_code == 204
    assert "POST" in before.headers["Access-Control-Allow-Methods"]
    assert "X-API-Key" in before.headers["Access-Control-Allow-Headers"]
    after = caption(shared.test_client(), Origin=origin, X_API_Key="k")
    for response in (before, after):
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in response.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in response.headers
    for name in ("X-Request-Id", "Server-Timing", "Retry-After"):
        assert name in after.headers["Access-Control-Expose-Headers"]


def test_a_configured_origin_may_read_errors_too(shared: Flask) -> None:
    refused = caption(shared.test_client(), Origin="https://a.example")
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://a.example"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://a.example", "https://a.example:444", "https://a.example.evil", "null"],
)
def test_any_other_origin_may_not(shared: Flask, origin: str) -> None:
    client = shared.test_client()
    for response in (preflight(client, origin), caption(client, Origin=origin, X_API_Key="k")):
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"]  # or a shared cache would answer it with another's


def test_a_star_lets_every_origin_in() -> None:
    client = application(cors_origins="*").test_client()
    for response in (preflight(client, "https://x.example"), caption(client, Origin="https://x.example")):
        assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_by_default_no_origin_may() -> None:
    client = application().test_client()
    for response in (preflight(client, "https://x.example"), caption(client, Origin="https://x.example")):
        assert "Access-Control-Allow-Origin" not in response.headers


# Names and proxies


@pytest.fixture(scope="module")
def named() -> Flask:
    return application(trusted_hosts="photos.example, .lab.example")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("photos.example", 200),
        ("photos.example:8000", 200),
        ("a.lab.example", 200),
        ("evil.example", 400),
        ("photos.example.evil", 400),
        ("xlab.example", 400),
    ],
)
def test_the_service_answers_to_its_names_only(named: Flask, host: str, status: int) -> None:
    client = named.test_client()
    assert caption(client, Host=host).status_code == status
    response = client.get("/v1/model", headers={"Host": host})
    if status == 200:
        assert response.status_code == 200
    else:
        assert_problem(response, 400, "host name")


def test_probes_and_scrapers_come_by_address(named: Flask) -> None:
    for route in ("/healthz", "/metrics"):
        assert named.test_client().get(route, headers={"Host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("proxies", "forwarded", "counted_apart"),
    [
        (0, ("198.51.100.1", "198.51.100.2"), False),  # a client may claim anything
        (1, ("198.51.100.1", "198.51.100.2"), True),
        (
            1,
            ("198.51.100.1, 203.0.113.9", "198.51.100.2, 203.0.113.9"),
            False,
        ),  # the last is the proxy's word
        (2, ("198.51.100.1, 203.0.113.9", "198.51.100.2, 203.0.113.9"), True),
    ],
)
def test_only_as_many_proxies_are_believed_as_there_are(
    proxies: int, forwarded: tuple[str, str], counted_apart: bool
) -> None:
    client = application(rate_limit="1/hour", trusted_proxies=proxies).test_client()
    statuses = [caption(client, X_Forwarded_For=address).status_code for address in forwarded]
    assert statuses == [200, 200 if counted_apart else 429]


def test_a_forwarded_host_is_not_believed() -> None:
    client = application(trusted_hosts="photos.example", trusted_proxies=1).test_client()
    assert caption(client, Host="evil.example", X_Forwarded_Host="photos.example").status_code == 400
