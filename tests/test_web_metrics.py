"""Prometheus metrics of one process; test_drills has those of several."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from support.fake_captioner import FakeCaptioner, image_file, post

from model import Caption
from service.app import create_app
from service.config import ServiceConfig

TIMEOUT_SECONDS = 120


def figures(text: str) -> dict[str, float]:
    """Every figure of an exposition, by its name with its labels in alphabetical order."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def client() -> FlaskClient:
    config = ServiceConfig(max_bytes=100_000, max_pixels=10_000)
    return create_app(config, FakeCaptioner()).test_client()  # type: ignore[arg-type]


def scraped(client: FlaskClient) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.content_type.startswith("text/plain")
    return figures(response.text)


def test_requests_are_counted_by_route_and_status(client: FlaskClient) -> None:
    for _ in range(2):
        post(client, image_file())
    post(client, b"no picture")
    client.get("/healthz")
    found = scraped(client)
    assert found['caption_requests_total{code="200",route="/v1/captions"}'] == 2
    assert found['caption_requests_total{code="415",route="/v1/captions"}'] == 1
    assert found['caption_requests_total{code="200",route="/healthz"}'] == 1


def test_request_path_is_not_a_label(client: FlaskClient) -> None:
    for path in ("/nowhere/at/all", "/wp-login.php?x=1"):
        client.get(path)
    client.delete("/v1/captions")
    assert "nowhere" not in client.get("/metrics").text
    found = scraped(client)
    assert found['caption_requests_total{code="404",route="none"}'] == 2
    assert found['caption_requests_total{code="405",route="none"}'] == 1


def test_request_and_stage_durations_are_observed(client: FlaskClient) -> None:
    post(client, image_file())
    client.get("/healthz")
    found = scraped(client)
    assert found['caption_request_duration_seconds_count{route="/v1/captions"}'] == 1
    assert not [name for name in found if "duration" in name and "healthz" in name]
    for stage in ("queue", "decode", "encode", "text", "draw"):
        assert found[f'caption_stage_seconds_count{{stage="{stage}"}}'] == 1


def test_caption_metrics_are_observed(client: FlaskClient) -> None:
    post(client, image_file(size=(100, 80)), num_captions="3")
    found = scraped(client)
    assert (found["caption_words_count"], found["caption_words_sum"]) == (1, 4)  # the best of the three
    assert found["caption_image_megapixels_sum"] == pytest.approx(0.008)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (bytes(200_000), "too_large"),
        (b"no picture", "unsupported"),
        (image_file()[:-100], "undecodable"),
        (image_file(size=(200, 200)), "image_limit"),
        (image_file(size=(8, 8)), "image_limit"),
    ],
    ids=["empty", "bytes", "text", "cut", "pixels", "tiny"],
)
def test_rejected_photo_is_counted_by_reason(client: FlaskClient, data: bytes, reason: str) -> None:
    post(client, data)
    rejected = {name: value for name, value in scraped(client).items() if "rejected_total" in name}
    assert rejected == {f'caption_rejected_total{{reason="{reason}"}}': 1}


def test_api_key_and_rate_limit_rejections_are_counted() -> None:
    config = ServiceConfig(api_key="k", rate_limit="1/hour")
    client = create_app(config, FakeCaptioner()).test_client()  # type: ignore[arg-type]
    assert [post(client, image_file()).status_code for _ in range(2)] == [401, 429]
    found = scraped(client)
    assert found['caption_rejected_total{reason="unauthorized"}'] == 1
    assert found['caption_rejected_total{reason="rate_limited"}'] == 1


def test_internal_error_is_not_a_rejection() -> None:
    class BrokenCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            raise RuntimeError

    client = create_app(ServiceConfig(), BrokenCaptioner()).test_client()  # type: ignore[arg-type]
    assert post(client, image_file()).status_code == 500
    assert not [name for name in scraped(client) if "rejected_total" in name]


def test_model_info_has_checkpoint_sha256(client: FlaskClient) -> None:
    assert scraped(client)[f'caption_model_info{{sha="{FakeCaptioner.info.sha256}"}}'] == 1


def test_apps_in_one_process_have_separate_metrics(client: FlaskClient) -> None:
    other = create_app(ServiceConfig(), FakeCaptioner()).test_client()  # type: ignore[arg-type]
    post(other, image_file())
    assert 'caption_requests_total{code="200",route="/v1/captions"}' not in scraped(client)


def waiting_and_in_flight(found: Mapping[str, float]) -> tuple[float, float]:
    return found["caption_queue_depth"], found["caption_inflight"]


class HeldCaptioner(FakeCaptioner):
    """Waits until it may continue."""

    def __init__(self) -> None:
        self.may_continue = Event()

    def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        assert self.may_continue.wait(TIMEOUT_SECONDS)
        return super().caption(*args, **kwargs)


def test_queue_and_inflight_gauges() -> None:
    captioner = HeldCaptioner()
    app = create_app(ServiceConfig(queue=2), captioner)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        first = [pool.submit(post, app.test_client(), image_file()) for _ in range(3)]
        try:
            until(lambda: waiting_and_in_flight(scraped(app.test_client())) == (2, 3))
            assert post(app.test_client(), image_file()).status_code == 503
        finally:
            captioner.may_continue.set()
        assert [answer.result().status_code for answer in first] == [200, 200, 200]
    found = scraped(app.test_client())
    assert waiting_and_in_flight(found) == (0, 0)
    assert found['caption_rejected_total{reason="busy"}'] == 1
