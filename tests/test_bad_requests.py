"""Requests of strangers that are malformed, oversized or hostile: cases of ``bad_inputs.CASES``."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
from bad_inputs import encoded, form, photo, post, upload
from conftest import draw_photo
from fake_captioner import PROBLEM, FakeCaptioner, assert_problem
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from service.app import create_app
from service.config import ServiceConfig

MAX_BYTES = 1_000_000
CAPTIONING = ("/v1/captions", "/v1/captions:batch", "/v1/overlays", "/model/predict")


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(ServiceConfig(max_bytes=MAX_BYTES), FakeCaptioner())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def good() -> bytes:
    return photo("JPEG")


def raw(body: bytes, content_type: str) -> dict[str, Any]:
    return {"data": body, "content_type": content_type}


def in_chunks(body: bytes, content_type: str) -> dict[str, Any]:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": content_type}
    return {
        "input_stream": io.BytesIO(body),
        "headers": headers,
        "environ_overrides": {"wsgi.input_terminated": True},
    }


def part(headers: str, body: bytes = b"", boundary: str = "b") -> dict[str, Any]:
    """A form of one part whose headers are written as they are."""
    content = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (
        boundary.encode(),
        headers.encode(),
        body,
        boundary.encode(),
    )
    return raw(content, f"multipart/form-data; boundary={boundary}")


NAMED = 'Content-Disposition: form-data; name="image"'
LONG = bytes(MAX_BYTES + 1)
MALFORMED = {
    "case 1: an empty form": (form({}), 400),
    "case 1: another name": (form({"photo": upload(b"x")}), 400),
    "case 1: no body at all": ({}, 411),
    "case 2: text": (form({"image": "hello"}), 400),
    "case 2: a file without a file name": (part(NAMED, b"\xff\xd8\xff"), 400),
    "case 2: a part without a name": (part("Content-Disposition: form-data", b"x"), 400),
    "case 2: a file without a name": (part('Content-Disposition: form-data; filename="a.jpg"', b"x"), 400),
    "case 2: a part without headers": (part("", b"x"), 400),
    "case 5: 1001 fields": (form({f"field{n}": "1" for n in range(1001)}), 413),
    "case 5: 1001 files": (form({f"image{n}": upload(b"x") for n in range(1001)}), 413),
    "case 6: 600 kB of text": (form({"beam_size": "1" * 600_000}), 413),
    "case 6: 600 kB of text in the name": (
        part(f'Content-Disposition: form-data; name="{"x" * 600_000}"'),
        413,
    ),
    "case 7: a form": (form({"image": upload(LONG)}), 413),
    "case 7: one byte": (raw(LONG, "multipart/form-data; boundary=b"), 413),
    "case 8: raw": (in_chunks(LONG, "image/jpeg"), 411),
    "case 9: form": (
        in_chunks(form({"image": upload(LONG)})["data"], "multipart/form-data; boundary=b"),
        411,
    ),
    "case 15: JSON": (raw(b'{"image": 1', "application/json"), 415),
    "case 15: a picture": (raw(photo("JPEG"), "image/jpeg"), 415),
    "case 15: no type": (raw(b"x", ""), 415),
    "case 16: no boundary": (raw(b"--b\r\n\r\n", "multipart/form-data"), 400),
    "case 16: 100 kB of boundary": (part(NAMED, boundary="b" * 100_000), 413),
    "case 16: a boundary that never comes": (raw(b"x" * 9000, "multipart/form-data; boundary=b"), 400),
    "case 53: data URL": (form({"image": "data:image/png;base64,AAAA"}), 400),
    "case 53: file URL": (form({"image": "file:///etc/passwd"}), 400),
    "case 53: address of a photo": (form({"image": "https://photos.example/a.jpg"}), 400),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("route", CAPTIONING)
def test_a_malformed_request_is_refused(client: FlaskClient, route: str, name: str) -> None:
    request, status = MALFORMED[name]
    assert_problem(client.post(route, **request), status)


@pytest.mark.parametrize("route", ["/v1/captions", "/v1/overlays", "/model/predict"])
def test_case_4_two_photos_are_refused_where_one_is_asked_for(client: FlaskClient, route: str) -> None:
    two = form({"image": [upload(good()), upload(good())]})
    assert_problem(client.post(route, **two), 400, "2 files named image")


def test_case_4_seventeen_photos_are_more_than_any_request_may_have(client: FlaskClient) -> None:
    assert client.post("/v1/captions:batch", **form({"image": [upload(good())] * 16})).status_code == 200
    assert_problem(client.post("/v1/captions:batch", **form({"image": [upload(good())] * 17})), 400, "16")


def test_case_7_the_limit_is_exact(client: FlaskClient) -> None:
    around = len(form({"image": upload(b"x")})["data"]) - 1
    for spare, status in ((0, 415), (1, 413)):
        body = form({"image": upload(bytes(MAX_BYTES - around + spare))})
        assert len(body["data"]) == MAX_BYTES + spare
        assert_problem(client.post("/v1/captions", **body), status)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("route", CAPTIONING)
def test_case_13_a_wrong_method_is_told_the_right_one(client: FlaskClient, route: str, method: str) -> None:
    response = client.open(route, method=method)
    assert_problem(response, 405)
    assert "POST" in response.headers["Allow"]


def test_case_14_who_asks_for_a_picture_gets_json_from_the_route_that_has_only_that(
    client: FlaskClient,
) -> None:
    response = client.post("/v1/captions", headers={"Accept": "image/png"}, **form({"image": upload(good())}))
    assert (response.status_code, response.mimetype) == (200, "application/json")
    refused = client.post("/v1/captions", headers={"Accept": "image/png"})
    assert refused.content_type == PROBLEM


NAMES = {
    "path": "../../etc/passwd",
    "absolute": "/etc/cron.d/caption",
    "Windows": "C:\\autoexec.bat",
    "NUL": "a\0.jpg",
    "4 kB": "x" * 4096 + ".jpg",
    "emoji": "\N{DOG FACE}.jpg",
    "markup": "<img src=x onerror=alert(1)>.jpg",
    "format": "{request_id}%s%n.jpg",
    "no type": "photo",
    "wrong type": "photo.exe",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("route", CAPTIONING)
def test_case_17_a_hostile_file_name_changes_nothing_and_never_comes_back(
    client: FlaskClient, route: str, name: str
) -> None:
    answer = client.post(route, **form({"image": upload(good(), NAMES[name])}))
    plain = client.post(route, **form({"image": upload(good(), "a.jpg")}))
    assert (answer.status_code, answer.data) == (200, plain.data)
    assert NAMES[name] not in str(answer.headers)


def test_case_17_a_file_name_is_no_path(client: FlaskClient, tmp_path: Path) -> None:
    target = tmp_path / "written.jpg"
    assert client.post("/v1/captions", **form({"image": upload(good(), str(target))})).status_code == 200
    assert not target.exists()
    existing = tmp_path / "green.jpg"
    existing.write_bytes(encoded(Image.new("RGB", (32, 48), "green"), "JPEG"))
    answer = client.post("/v1/captions", **form({"image": upload(good(), str(existing))}))
    assert answer.get_json()["image"]["width"] == 120


WRONG_OPTIONS = [
    *[
        ("beam_size", value, "from 1 to 10")
        for value in ("0", "-1", "11", "1e9", "NaN", "abc", "", " 3", "٣", "3.0")
    ],
    *[("num_captions", value, "from 1 to") for value in ("0", "-1", "11", "99999999999999999999")],
    *[("max_length", value, "from 1 to 200") for value in ("0", "10000", "Infinity", "0x10")],
    ("overlays", "all", "none"),
    ("max_words", "10", "known are beam_size"),
]


@pytest.mark.parametrize(("name", "value", "mention"), WRONG_OPTIONS)
@pytest.mark.parametrize("where", ["form", "query"])
@pytest.mark.parametrize("route", ["/v1/captions", "/v1/captions:batch"])
def test_case_52_a_wrong_option_is_refused_by_name(
    client: FlaskClient, route: str, where: str, name: str, value: str, mention: str
) -> None:
    fields = {name: value} if where == "form" else {}
    query = {} if where == "form" else {name: value}
    body = form({"image": upload(good()), **fields})
    assert_problem(client.post(route, query_string=query, **body), 400, name, mention)


def test_case_52_more_captions_than_hypotheses_are_refused(client: FlaskClient) -> None:
    assert_problem(post(client, good(), beam_size="2", num_captions="3"), 400, "num_captions")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "file:///etc/passwd", "https://photos.example/a.jpg"]
)
def test_case_53_nothing_is_fetched_by_url(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    for request in (
        form({}) | {"query_string": {"url": url}},
        form({}) | {"query_string": {"image": url}},
        form({"url": url}),
    ):
        assert_problem(client.post("/v1/captions", **request), 400)


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the service asked for what it must not")


IDS = {
    "injection": "a\r\nSet-Cookie: b=1",
    "5 kB": "x" * 5000,
    "space": "a b",
    "umlaut": "\xe4",
    "quote": 'a"b',
}


@pytest.mark.parametrize("name", IDS)
def test_case_54_a_forged_id_of_the_request_is_replaced(app: Flask, name: str) -> None:
    # Straight into the application: the test client itself would refuse the line break.
    seen: dict[str, Any] = {}
    environ = app.test_request_context("/healthz").request.environ | {"HTTP_X_REQUEST_ID": IDS[name]}
    body = app.wsgi_app(environ, lambda status, headers, _=None: seen.update(status=status, headers=headers))
    assert b"".join(body)
    assert seen["status"] == "200 OK"
    headers = dict(seen["headers"])
    assert "Set-Cookie" not in headers
    assert headers["X-Request-Id"].isalnum()
    assert len(headers["X-Request-Id"]) == 32


def test_case_54_the_same_id_twice_is_two_requests(client: FlaskClient) -> None:
    headers = {"X-Request-Id": "one-and-the-same", "Idempotency-Key": "one-and-the-same"}
    for size in ((32, 48), (48, 32)):
        body = form({"image": upload(encoded(draw_photo(3, size)))})
        answer = client.post("/v1/captions", headers=headers, **body)
        assert answer.headers["X-Request-Id"] == "one-and-the-same"
        assert answer.get_json()["width"] == size[0]


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_case_55_pages_of_other_origins_are_not_let_in(client: FlaskClient, method: str) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.open("/v1/captions", method=method, headers=headers)
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]


def test_case_56_a_foreign_host_name_is_refused_where_names_are_configured(client: FlaskClient) -> None:
    assert client.get("/v1/model", headers={"Host": "evil.example"}).status_code == 200
    strict = create_app(ServiceConfig(trusted_hosts="photos.example"), FakeCaptioner()).test_client()
    assert strict.get("/v1/model", headers={"Host": "photos.example"}).status_code == 200
    for host in ("evil.example", "photos.example.evil.example", "evil.example:80", "xphotos.example"):
        assert_problem(strict.get("/v1/model", headers={"Host": host}), 400)
        body = form({"image": upload(good())})
        assert_problem(strict.post("/v1/captions", headers={"Host": host}, **body), 400)


@pytest.mark.parametrize("route", CAPTIONING)
def test_case_61_photos_are_captioned_without_a_disk(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """Neither a temporary file nor any other is written, also for what Werkzeug would put into one."""
    large = encoded(Image.effect_noise((900, 900), 80), "PNG")
    assert 600_000 < len(large) < MAX_BYTES
    assert (
        client.post(route, **form({"image": upload(good())})).status_code == 200
    )  # what loads late is loaded
    for name in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", refuse, raising=False)
    monkeypatch.setattr("werkzeug.formparser.TemporaryFile", refuse, raising=False)
    real_open = open

    def reading_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        assert not set(mode) & set("wax+"), file
        return real_open(file, mode, *args, **kwargs)

    monkeypatch.setattr("builtins.open", reading_open)
    assert client.post(route, **form({"image": upload(large)})).status_code == 200
