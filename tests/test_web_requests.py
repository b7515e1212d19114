"""Requests that are malformed, oversized or hostile."""

import io
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest
from conftest import draw_photo
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from support.bad_inputs import encoded, form, photo, post, upload
from support.fake_captioner import PROBLEM, FakeCaptioner, assert_problem

from service.app import create_app
from service.config import ServiceConfig

MAX_BYTES = 1_000_000
CAPTION_ROUTES = ("/v1/captions", "/v1/captions:batch", "/v1/overlays", "/model/predict")


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
    """A form of one part with these raw headers."""
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
    "empty form": (form({}), 400),
    "file of another name": (form({"photo": upload(b"x")}), 400),
    "image and another file": (form({"image": upload(photo("JPEG")), "mask": upload(photo("JPEG"))}), 400),
    "no body": ({}, 411),
    "text as image": (form({"image": "hello"}), 400),
    "file without file name": (part(NAMED, b"\xff\xd8\xff"), 400),
    "part without name": (part("Content-Disposition: form-data", b"x"), 400),
    "file without name": (part('Content-Disposition: form-data; filename="a.jpg"', b"x"), 400),
    "part without headers": (part("", b"x"), 400),
    "1001 fields": (form({f"field{n}": "1" for n in range(1001)}), 413),
    "41 fields": (form({"image": upload(photo("JPEG"))} | {f"field{n}": "1" for n in range(40)}), 413),
    "1001 files": (form({f"image{n}": upload(b"x") for n in range(1001)}), 413),
    "200 kB of text": (form({"image": upload(photo("JPEG")), "beam_size": "1" * 200_000}), 413),
    "600 kB of text": (form({"beam_size": "1" * 600_000}), 413),
    "600 kB of field name": (
        part(f'Content-Disposition: form-data; name="{"x" * 600_000}"'),
        413,
    ),
    "form over the limit": (form({"image": upload(LONG)}), 413),
    "body over the limit": (raw(LONG, "multipart/form-data; boundary=b"), 413),
    "chunked raw body": (in_chunks(LONG, "image/jpeg"), 411),
    "chunked form": (
        in_chunks(form({"image": upload(LONG)})["data"], "multipart/form-data; boundary=b"),
        411,
    ),
    "body of JSON": (raw(b'{"image": 1', "application/json"), 415),
    "body of an image": (raw(photo("JPEG"), "image/jpeg"), 415),
    "no content type": (raw(b"x", ""), 415),
    "no boundary": (raw(b"--b\r\n\r\n", "multipart/form-data"), 400),
    "boundary of 100 kB": (part(NAMED, boundary="b" * 100_000), 413),
    "boundary that never comes": (raw(b"x" * 9000, "multipart/form-data; boundary=b"), 400),
    "data URL": (form({"image": "data:image/png;base64,AAAA"}), 400),
    "file URL": (form({"image": "file:///etc/passwd"}), 400),
    "URL of a photo": (form({"image": "https://photos.example/a.jpg"}), 400),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_request_is_refused(client: FlaskClient, name: str) -> None:
    request, status = MALFORMED[name]
    assert_problem(client.post("/v1/captions", **request), status)


@pytest.mark.parametrize("route", CAPTION_ROUTES[1:])
def test_malformed_request_is_refused_by_other_routes(client: FlaskClient, route: str) -> None:
    for name in ("empty form", "no body", "chunked raw body", "body of JSON", "form over the limit"):
        request, status = MALFORMED[name]
        assert_problem(client.post(route, **request), status)


@pytest.mark.parametrize("route", ["/v1/captions", "/v1/overlays", "/model/predict"])
def test_two_images_are_refused(client: FlaskClient, route: str) -> None:
    two = form({"image": [upload(good()), upload(good())]})
    assert_problem(client.post(route, **two), 400, "2 files named image")


def test_byte_limit_is_exact(client: FlaskClient) -> None:
    around = len(form({"image": upload(b"x")})["data"]) - 1
    for spare, status in ((0, 415), (1, 413)):
        body = form({"image": upload(bytes(MAX_BYTES - around + spare))})
        assert len(body["data"]) == MAX_BYTES + spare
        assert_problem(client.post("/v1/captions", **body), status)


@pytest.mark.parametrize(
    ("route", "method"), [*zip(CAPTION_ROUTES, ("GET", "PUT", "DELETE", "PATCH"), strict=True)]
)
def test_wrong_method_returns_405_with_allow(client: FlaskClient, route: str, method: str) -> None:
    response = client.open(route, method=method)
    assert_problem(response, 405)
    assert "POST" in response.headers["Allow"]


def test_accept_header_does_not_change_response_type(client: FlaskClient) -> None:
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
def test_hostile_file_name_is_ignored(client: FlaskClient, name: str) -> None:
    answer = client.post("/v1/captions", **form({"image": upload(good(), NAMES[name])}))
    plain = client.post("/v1/captions", **form({"image": upload(good(), "a.jpg")}))
    assert (answer.status_code, answer.data) == (200, plain.data)
    assert NAMES[name] not in str(answer.headers)


def test_file_name_is_not_used_as_path(client: FlaskClient, tmp_path: Path) -> None:
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
        for value in ("0", "11", "-1", "1e9", "3.0", "", " 3", "٣", "9" * 20, "x" * 1000)
    ],
    ("num_captions", "4", "from 1 to 3"),
    ("max_length", "0x10", "from 1 to 200"),
    *[("length_penalty", value, "from 0 to 2") for value in ("2.1", "-0.1", "1e999", "nan", "0,7")],
    ("allow_repeats", "yes", "true or false"),
    ("overlays", "all", "none"),
    ("max_words", "10", "valid are beam_size"),
]


@pytest.mark.parametrize(("name", "value", "mention"), WRONG_OPTIONS)
def test_invalid_option_is_named(client: FlaskClient, name: str, value: str, mention: str) -> None:
    assert_problem(post(client, good(), **{name: value}), 400, name, mention)


@pytest.mark.parametrize("route", ["/v1/captions", "/v1/captions:batch"])
def test_invalid_query_option_is_named(client: FlaskClient, route: str) -> None:
    response = client.post(route, query_string={"beam_size": "11"}, **form({"image": upload(good())}))
    assert_problem(response, 400, "beam_size", "from 1 to 10")


def test_more_captions_than_beams_are_refused(client: FlaskClient) -> None:
    assert_problem(post(client, good(), beam_size="2", num_captions="3"), 400, "num_captions")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "file:///etc/passwd", "https://photos.example/a.jpg"]
)
def test_urls_are_not_fetched(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    for request in (
        form({}) | {"query_string": {"url": url}},
        form({}) | {"query_string": {"image": url}},
        form({"url": url}),
    ):
        assert_problem(client.post("/v1/captions", **request), 400)


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the service opened a connection")


IDS = {
    "injection": "a\r\nSet-Cookie: b=1",
    "5 kB": "x" * 5000,
    "space": "a b",
    "umlaut": "\xe4",
    "quote": 'a"b',
}


@pytest.mark.parametrize("name", IDS)
def test_invalid_request_id_is_replaced(app: Flask, name: str) -> None:
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


def test_repeated_request_id_is_captioned_anew(client: FlaskClient) -> None:
    headers = {"X-Request-Id": "one-and-the-same", "Idempotency-Key": "one-and-the-same"}
    for size in ((32, 48), (48, 32)):
        body = form({"image": upload(encoded(draw_photo(3, size)))})
        answer = client.post("/v1/captions", headers=headers, **body)
        assert answer.headers["X-Request-Id"] == "one-and-the-same"
        assert answer.get_json()["width"] == size[0]


@pytest.mark.parametrize("route", CAPTION_ROUTES)
def test_captioning_writes_no_files(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, route: str) -> None:
    """Not even the temporary files that Werkzeug would use."""
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
