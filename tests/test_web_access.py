"""API keys, rate limits, CORS, trusted hosts and proxies."""

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
from flask import Flask
from flask.testing import FlaskClient
from support.fake_captioner import FakeCaptioner, assert_problem, image_file
from support.processes import free_port
from werkzeug.test import TestResponse

from service.app import create_app
from service.config import ServiceConfig
from service.web import rate_limit

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
        data={"image": (io.BytesIO(image_file()), "a.jpg")},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        environ_base={"REMOTE_ADDR": address},
    )


# The key


@pytest.fixture(scope="module")
def locked() -> Flask:
    return application(api_key="open-sesame")


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
def test_wrong_api_key_returns_401(locked: Flask, headers: dict[str, str]) -> None:
    response = locked.test_client().post(
        "/v1/captions", data={"image": (io.BytesIO(image_file()), "a.jpg")}, headers=headers
    )
    assert_problem(response, 401, "Authorization: Bearer")
    assert response.headers["WWW-Authenticate"].lower().startswith("bearer")


@pytest.mark.parametrize("route", CAPTION_ROUTES)
def test_every_caption_route_needs_the_api_key(locked: Flask, route: str) -> None:
    client = locked.test_client()
    assert caption(client, route).status_code == 401
    for headers in ({"Authorization": "Bearer open-sesame"}, {"X_API_Key": "open-sesame"}):
        assert caption(client, route, **headers).status_code == 200


def test_api_key_may_hold_any_header_characters() -> None:
    client = create_app(ServiceConfig(api_key="a=b,c==;d:e"), FakeCaptioner()).test_client()
    for headers in ({"Authorization": "bearer a=b,c==;d:e"}, {"X_API_Key": "a=b,c==;d:e"}):
        assert caption(client, "/v1/captions", **headers).status_code == 200


@pytest.mark.parametrize("route", OPEN_ROUTES)
def test_open_routes_need_no_api_key(locked: Flask, route: str) -> None:
    assert locked.test_client().get(route).status_code == 200


def test_api_key_is_checked_before_the_body(locked: Flask) -> None:
    response = locked.test_client().post("/v1/captions", data=b"{}", content_type="application/json")
    assert_problem(response, 401)


def test_no_api_key_by_default() -> None:
    assert caption(application().test_client()).status_code == 200


# How often


@pytest.fixture
def limited() -> FlaskClient:
    return application(rate_limit="2/hour").test_client()


def test_rate_limit_returns_429(limited: FlaskClient) -> None:
    assert [caption(limited).status_code for _ in range(2)] == [200, 200]
    refused = caption(limited)
    assert_problem(refused, 429, "2/hour")
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit-Remaining"] == "0"


def test_rate_limit_headers(limited: FlaskClient) -> None:
    headers = caption(limited).headers
    assert (headers["RateLimit-Limit"], headers["RateLimit-Remaining"]) == ("2", "1")
    assert 0 < int(headers["RateLimit-Reset"]) <= 3600  # seconds, not the time of day
    assert "Retry-After" not in headers


def test_rate_limit_is_shared_by_caption_routes(limited: FlaskClient) -> None:
    assert caption(limited, "/v1/overlays").status_code == 200
    assert caption(limited, "/model/predict").status_code == 200
    assert caption(limited, "/v1/captions:batch").status_code == 429


def test_open_routes_are_not_rate_limited(limited: FlaskClient) -> None:
    for route in OPEN_ROUTES:
        answers = [limited.get(route) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit-Limit" not in answers[0].headers
    assert caption(limited).status_code == 200


def test_rate_limit_counts_wrong_api_keys() -> None:
    client = application(rate_limit="2/hour", api_key="open-sesame").test_client()
    assert [caption(client, X_API_Key="x").status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ("192.0.2.8", 200),
        ("::ffff:192.0.2.7", 429),  # the same client on a dual-stack socket
        ("2001:db8:1:2::1", 200),
    ],
)
def test_rate_limit_is_per_client(limited: FlaskClient, other: str, status: int) -> None:
    assert {caption(limited).status_code for _ in range(2)} == {200}
    assert caption(limited, address=other).status_code == status


def test_rate_limit_is_per_ipv6_network(limited: FlaskClient) -> None:
    addresses = ("2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff::3", "2001:db8:1:3::1")
    assert [caption(limited, address=address).status_code for address in addresses] == [200, 200, 429, 200]


def test_rate_limit_without_client_address(limited: FlaskClient) -> None:
    assert [caption(limited, address="").status_code for _ in range(3)] == [200, 200, 429]


def test_no_rate_limit_by_default() -> None:
    response = caption(application().test_client())
    assert "RateLimit-Limit" not in response.headers


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a running Redis server."""
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


def test_rate_limit_is_shared_through_redis(redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = dict.fromkeys(
        rate_limit._REDIS_TIMEOUTS, 60
    )  # on a busy machine too, it is the Redis that counts
    monkeypatch.setattr(rate_limit, "_REDIS_TIMEOUTS", patient)
    clients = [application(rate_limit="3/hour", rate_limit_storage=redis).test_client() for _ in range(2)]
    statuses = [caption(clients[index % 2]).status_code for index in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_rate_limit_falls_back_without_redis() -> None:
    away = f"redis://127.0.0.1:{free_port()}"
    client = application(rate_limit="2/hour", rate_limit_storage=away).test_client()
    assert [caption(client).status_code for _ in range(3)] == [200, 200, 429]


# CORS


def preflight(client: FlaskClient, origin: str, route: str = "/v1/captions") -> TestResponse:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options(route, headers=headers | {"Access-Control-Request-Headers": "x-api-key"})


@pytest.fixture(scope="module")
def shared() -> Flask:
    return application(cors_origins="https://a.example, http://[::1]:8443", api_key="k")


@pytest.mark.parametrize("origin", ["https://a.example", "http://[::1]:8443"])
def test_configured_origin_gets_cors_headers(shared: Flask, origin: str) -> None:
    before = preflight(shared.test_client(), origin)
    assert before.status_code == 200
    assert "POST" in before.headers["Access-Control-Allow-Methods"]
    assert before.headers["Access-Control-Allow-Headers"] == "x-api-key"
    after = caption(shared.test_client(), Origin=origin, X_API_Key="k")
    for response in (before, after):
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in response.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in response.headers
    for name in ("X-Request-Id", "Server-Timing", "Retry-After"):
        assert name in after.headers["Access-Control-Expose-Headers"]


def test_configured_origin_may_read_errors(shared: Flask) -> None:
    refused = caption(shared.test_client(), Origin="https://a.example")
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://a.example"


@pytest.mark.parametrize("origin", ["https://evil.example", "https://a.example.evil"])
def test_unknown_origin_gets_no_cors_headers(shared: Flask, origin: str) -> None:
    client = shared.test_client()
    for response in (preflight(client, origin), caption(client, Origin=origin, X_API_Key="k")):
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"]  # or a shared cache would serve it to another


def test_star_allows_every_origin() -> None:
    client = application(cors_origins="*").test_client()
    for response in (preflight(client, "https://x.example"), caption(client, Origin="https://x.example")):
        assert response.headers["Access-Control-Allow-Origin"] == "*"


def test_no_cors_headers_by_default() -> None:
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
def test_only_trusted_hosts_are_served(named: Flask, host: str, status: int) -> None:
    client = named.test_client()
    assert caption(client, Host=host).status_code == status
    response = client.get("/v1/model", headers={"Host": host})
    if status == 200:
        assert response.status_code == 200
    else:
        assert_problem(response, 400, "Host not allowed")


def test_probes_may_use_any_host(named: Flask) -> None:
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
def test_forwarded_for_is_trusted_per_proxy(
    proxies: int, forwarded: tuple[str, str], counted_apart: bool
) -> None:
    client = application(rate_limit="1/hour", trusted_proxies=proxies).test_client()
    statuses = [caption(client, X_Forwarded_For=address).status_code for address in forwarded]
    assert statuses == [200, 200 if counted_apart else 429]


def test_forwarded_host_is_not_trusted() -> None:
    client = application(trusted_hosts="photos.example", trusted_proxies=1).test_client()
    assert caption(client, Host="evil.example", X_Forwarded_Host="photos.example").status_code == 400
