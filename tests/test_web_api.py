"""Batches, the queue, the OpenAPI document and the MAX-compatible routes."""

import io
import re
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from support.fake_captioner import FakeCaptioner, assert_problem, image_file, post

from model import Caption
from service.app import create_app
from service.config import ServiceConfig

API = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(ServiceConfig(max_bytes=500_000), FakeCaptioner())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def files(*contents: bytes) -> list[tuple[io.BytesIO, str]]:
    return [(io.BytesIO(content), f"{index}.jpg") for index, content in enumerate(contents)]


# Several photos


def batch(client: FlaskClient, *contents: bytes, **fields: str) -> Any:
    return client.post("/v1/captions:batch", data={"image": files(*contents), **fields})


def test_batch_results_equal_single_results(client: FlaskClient) -> None:
    photos = [image_file("red"), image_file("blue", kind="PNG"), image_file("green", size=(30, 60))]
    results = batch(client, *photos, overlays="none", num_captions="2").get_json()["results"]
    alone = [post(client, data, overlays="none", num_captions="2").get_json() for data in photos]
    assert results == alone


def test_bad_photo_does_not_fail_its_batch(client: FlaskClient) -> None:
    response = batch(
        client, image_file("red"), b"no picture", b"", image_file(size=(8, 8)), image_file("blue")
    )
    assert response.status_code == 200
    first, second, third, fourth, fifth = response.get_json()["results"]
    assert first["captions"][0]["caption"] == "a red wide picture"
    assert fifth["captions"][0]["caption"] == "a blue wide picture"
    assert [problem["status"] for problem in (second, third, fourth)] == [415, 400, 422]
    assert second["request_id"] == response.headers["X-Request-Id"]
    figures = client.get("/metrics").text
    for reason in ("unsupported", "malformed", "image_limit"):
        assert re.search(rf'caption_rejected_total{{reason="{reason}"}} [1-9]', figures)


def test_batch_takes_at_most_16_photos(client: FlaskClient) -> None:
    photo = image_file(size=(16, 16))
    assert len(batch(client, *[photo] * 16, overlays="none").get_json()["results"]) == 16
    assert_problem(batch(client, *[photo] * 17), 400, "17", "16")
    assert_problem(client.post("/v1/captions:batch", data={}, content_type="multipart/form-data"), 400)


def test_batch_options_are_checked_before_captioning() -> None:
    class UntouchedCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            raise AssertionError("nothing is to be captioned")

    client = create_app(ServiceConfig(), UntouchedCaptioner()).test_client()
    assert_problem(batch(client, image_file(), beam_size="11"), 400, "beam_size", "from 1 to 10")


# The queue


class SlowCaptioner(FakeCaptioner):
    """Captions when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        self.begun.release()
        assert self.go.wait(30)
        return super().caption(*args, **kwargs)


def test_full_queue_returns_503_before_reading_the_body() -> None:
    captioner = SlowCaptioner()
    app = create_app(ServiceConfig(queue=0), captioner)
    answers: list[int] = []

    def ask() -> None:
        answers.append(post(app.test_client(), image_file(), overlays="none").status_code)

    worker = threading.Thread(target=ask)
    worker.start()
    assert captioner.begun.acquire(timeout=30)

    client = app.test_client()
    for route in ("/v1/captions", "/v1/captions:batch", "/v1/overlays", "/model/predict"):
        refused = client.post(
            route,
            data=b"this would be 400",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert_problem(refused, 503, "retry after")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.get_json()["type"] == "/problems/busy"
    assert client.get("/healthz").status_code == 200
    captioner.go.set()
    worker.join()
    assert answers == [200]
    assert post(client, image_file(), overlays="none").status_code == 200


def test_server_timing_lists_every_stage(client: FlaskClient) -> None:
    timing = post(client, image_file()).headers["Server-Timing"]
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", timing))
    assert set(stages) == {"queue", "decode", "encode", "text", "draw"}
    assert "Server-Timing" not in client.get("/healthz").headers


# Clients of the MAX Image Caption Generator


def test_max_predict_returns_three_predictions(client: FlaskClient) -> None:
    response = post(client, image_file("green"), "/model/predict")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    answer = response.get_json()
    assert list(answer) == ["status", "predictions"]
    assert answer["status"] == "ok"
    assert [list(one) for one in answer["predictions"]] == [["index", "caption", "probability"]] * 3
    assert [one["index"] for one in answer["predictions"]] == ["0", "1", "2"]
    assert answer["predictions"][0]["caption"] == "a green wide picture"
    probabilities = [one["probability"] for one in answer["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < probabilities[-1] < probabilities[0] < 1


def test_max_metadata(client: FlaskClient) -> None:
    metadata = client.get("/model/metadata").get_json()
    assert list(metadata) == ["id", "name", "description", "type", "license", "source"]
    assert all(isinstance(value, str) and value for value in metadata.values())
    assert metadata["license"] == "CC0-1.0"


@pytest.mark.parametrize(("data", "status"), [(b"", 400), (b"text", 415), (image_file()[:300], 422)])
def test_max_predict_reports_errors(client: FlaskClient, data: bytes, status: int) -> None:
    assert_problem(post(client, data, "/model/predict"), status)


# The specification


def test_openapi_errors_are_problem_documents(client: FlaskClient) -> None:
    document = client.get("/openapi.json").get_json()
    responses = document["components"]["responses"]
    assert {HTTPStatus.SERVICE_UNAVAILABLE.name, HTTPStatus.UNSUPPORTED_MEDIA_TYPE.name} <= set(responses)
    for response in responses.values():
        assert list(response["content"]) == ["application/problem+json"]
    for path in ("/v1/captions", "/v1/captions:batch", "/v1/overlays", "/model/predict"):
        stated = set(document["paths"][path]["post"]["responses"])
        assert {"200", "400", "411", "413", "415", "422", "503"} <= stated


def test_openapi_declares_api_key(client: FlaskClient) -> None:
    guarded = create_app(ServiceConfig(api_key="a-secret"), FakeCaptioner()).test_client()
    document = guarded.get("/openapi.json").get_json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    assert "a-secret" not in guarded.get("/openapi.json").text
    assert "security" not in client.get("/openapi.json").get_json()


def test_docs_page_loads_no_external_resources(client: FlaskClient) -> None:
    text = client.get("/docs").get_data(as_text=True)
    addresses = re.findall(r'(?:src|href|data-url)="([^"]+)"', text)
    assert len(addresses) >= 5
    for address in addresses:
        assert address.startswith("/")
        with client.get(address) as response:
            assert response.status_code == 200, address
    assert "<style" not in text
    assert not re.search(r"<script(?![^>]*src)", text)
    assert_problem(client.get("/docs/index.html"), 404)


def test_api_docs_name_every_route_and_status(client: FlaskClient) -> None:
    text = API.read_text(encoding="utf-8")
    for path, operations in client.get("/openapi.json").get_json()["paths"].items():
        assert path in text
        for operation in operations.values():
            for status in operation["responses"]:
                assert status in text, (path, status)
