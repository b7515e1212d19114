"""The JSON log lines of the application; test_drills has those of gunicorn."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.fake_captioner import FakeCaptioner, image_file, post

from model import Caption
from service.app import create_app
from service.config import ServiceConfig
from service.web.logs import LineFormatter

Line = dict[str, Any]


@contextmanager
def logged() -> Iterator[list[Line]]:
    """The lines that the service logs meanwhile; complete at the end."""
    stream, lines = io.StringIO(), list[Line]()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger("service")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        lines += map(json.loads, stream.getvalue().splitlines())


@pytest.fixture
def client() -> FlaskClient:
    return create_app(ServiceConfig(), FakeCaptioner()).test_client()  # type: ignore[arg-type]


def test_captioned_photo_is_one_log_line(client: FlaskClient) -> None:
    data = image_file(size=(60, 40), kind="PNG")
    with logged() as lines:
        response = post(client, data, overlays="none")
    [line] = lines
    assert (line["level"], line["logger"]) == ("INFO", "service.access")
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert (line["route"], line["method"], line["code"]) == ("/v1/captions", "POST", 200)
    assert set(line["stages"]) == {"queue", "decode", "encode", "text", "draw"}
    assert sum(line["stages"].values()) <= line["ms"] + 0.5  # each is rounded
    assert line["bytes"] > len(data)
    about = {"width": 60, "height": 40, "format": "PNG", "words": 4}
    assert line["photographs"] == [about | {"sha256": sha256(data).hexdigest()[:12]}]
    assert line["ts"].endswith("+00:00")


def test_every_photo_of_a_batch_is_logged(client: FlaskClient) -> None:
    images = [(io.BytesIO(image_file(size=(side, 40))), "a.jpg") for side in (50, 60)]
    with logged() as lines:
        client.post("/v1/captions:batch", data={"image": images})
    assert [photo["width"] for photo in lines[0]["photographs"]] == [50, 60]


def test_refusal_logs_its_problem(client: FlaskClient) -> None:
    with logged() as lines:
        post(client, image_file()[:-100])
        client.get("/nowhere")
    assert [(line["code"], line["problem"]) for line in lines] == [
        (422, "/problems/undecodable-image"),
        (404, "Not Found"),
    ]


def test_client_data_is_not_logged(client: FlaskClient) -> None:
    private = "private-matter"
    with logged() as lines:
        for data in (image_file(), b"no picture"):
            client.post(
                "/v1/captions",
                data={"image": (io.BytesIO(data), f"{private}.jpg")},
                query_string={"overlays": "none"},
                headers={"Authorization": f"Bearer {private}", "User-Agent": private, "Referer": private},
                environ_base={"REMOTE_ADDR": "192.0.2.77"},
            )
        client.post("/v1/captions", data={private: "1"}, query_string={private: "1"})
        client.get(f"/{private}?{private}=1")
    text = json.dumps(lines)
    assert len(lines) == 4
    assert private not in text
    assert "192.0.2.77" not in text


def test_log_injection_is_escaped(client: FlaskClient) -> None:
    with logged() as lines:
        client.get("/%0a%7b%22level%22:%22ERROR%22%7d", headers={"X-Request-Id": 'a"}{"b'})
    [line] = lines
    assert (line["level"], line["route"]) == ("INFO", "none")


def test_only_failed_probes_are_logged(client: FlaskClient) -> None:
    with logged() as lines:
        for path in ("/healthz", "/metrics", "/readyz"):
            client.get(path)
    assert [(line["route"], line["code"]) for line in lines] == [("/readyz", 503)]  # it has not captioned yet


class BrokenCaptioner(FakeCaptioner):
    """Cannot caption."""

    def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        raise RuntimeError("the reason")


def test_internal_error_is_logged_once_with_traceback() -> None:
    client = create_app(ServiceConfig(), BrokenCaptioner()).test_client()  # type: ignore[arg-type]
    with logged() as lines:
        response = post(client, image_file())
    [error] = [line for line in lines if line["level"] == "ERROR"]
    assert "RuntimeError: the reason" in error["traceback"]
    assert "Traceback" in error["traceback"]
    [answered] = [line for line in lines if line["level"] == "INFO"]
    assert answered["code"] == 500
    assert {line["request_id"] for line in lines} == {response.headers["X-Request-Id"]}
