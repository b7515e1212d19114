"""Prometheus metrics of one process and of several."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import psutil
import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from support.fake_captioner import FakeCaptioner, image_file, post
from support.processes import ask, ask_for_caption, free_port, held, running, wait_for

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


# One process


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
    """Goes on when it is let."""

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


# Several processes


class Service(NamedTuple):
    """A service that runs."""

    port: int
    master: subprocess.Popen[bytes]
    hold: Path  # see fake_service

    def scrape(self) -> dict[str, float]:
        return figures(ask(self.port, "/metrics").body.decode())

    @property
    def workers(self) -> list[int]:
        """Their process numbers."""
        return [child.pid for child in psutil.Process(self.master.pid).children()]

    @property
    def folder(self) -> Path:
        """Where the processes add up."""
        [folder] = [
            folder
            for parent in ("/dev/shm", "/tmp")
            for folder in Path(parent).glob(f"sightline-{self.master.pid}-*")
        ]
        return folder


@contextmanager
def started(folder: Path) -> Iterator[Service]:
    """Two processes with a captioner that takes a while."""
    port, log = free_port(), folder / "log"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "service/gunicorn_config.py",
        "support.fake_service:app",
    ]
    environment = {
        "CAPTION_BIND": f"127.0.0.1:{port}",
        "CAPTION_WORKERS": "2",
        "PYTHONPATH": "tests",
        "FAKE_CAPTION_SECONDS": "0.2",
        "FAKE_CAPTION_HOLD": str(folder / "hold"),
    }
    with running(command, log, environment) as master:
        wait_for(port, "/readyz", master, log)
        yield Service(port, master, folder / "hold")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for many tests; no test may count on its first figures."""
    with started(tmp_path_factory.mktemp("service")) as service:
        yield service


def captions_at_once(port: int, count: int) -> Sequence[int]:
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: ask_for_caption(port, image_file()), range(count)))
    return [answer.status for answer in answers]


def replace_worker(service: Service, how: signal.Signals) -> None:
    """Stop one process and wait for the one that comes instead."""
    before = set(service.workers)
    os.kill(min(before), how)
    until(lambda: len(service.workers) == 2 and set(service.workers) != before)
    until(lambda: ask(service.port, "/readyz").status == 200)


def captioned(service: Service) -> float:
    return service.scrape().get('caption_requests_total{code="200",route="/v1/captions"}', 0)


def test_counters_survive_killed_process(service: Service) -> None:
    before = captioned(service)
    assert set(captions_at_once(service.port, 8)) == {200}
    assert captioned(service) == before + 8
    for _ in range(3):
        replace_worker(service, signal.SIGKILL)
    assert set(captions_at_once(service.port, 4)) == {200}
    assert captioned(service) == before + 12


def test_killed_process_leaves_no_inflight(service: Service) -> None:
    with ThreadPoolExecutor(12) as pool, held(service.hold):
        doomed = [pool.submit(ask_for_caption, service.port, image_file()) for _ in range(12)]
        until(lambda: service.scrape()["caption_inflight"] > 2)
        for worker in service.workers:
            os.kill(worker, signal.SIGKILL)
    assert any(answer.exception() for answer in doomed)
    until(lambda: ask(service.port, "/readyz").status == 200)
    until(lambda: waiting_and_in_flight(service.scrape()) == (0, 0))


def test_finished_processes_leave_no_files(service: Service) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        replace_worker(service, how)
        assert set(captions_at_once(service.port, 4)) == {200}
    writers = {file.stem.rpartition("_")[2] for file in service.folder.iterdir()}
    # Twice as many as there are processes: when reloading, the old and the new live side by side.
    assert writers <= {str(service.master.pid), "worker1", "worker2", "worker3", "worker4"}


def test_reload_keeps_metrics(service: Service) -> None:
    captions_at_once(service.port, 3)
    figure, before = captioned(service), set(service.workers)
    service.master.send_signal(signal.SIGHUP)
    until(lambda: len(service.workers) == 2 and not before & set(service.workers))
    until(lambda: ask(service.port, "/readyz").status == 200)
    assert captioned(service) == figure > 0


def test_metrics_folder_is_private_and_removed(tmp_path: Path) -> None:
    with started(tmp_path) as service:
        folder = service.folder
        assert folder.stat().st_mode & 0o777 == 0o700
        service.master.terminate()
        assert service.master.wait(TIMEOUT_SECONDS) == 0
        assert not folder.exists()
