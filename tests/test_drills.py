"""Load and fault tests: a real gunicorn that is overloaded, stopped, killed, reloaded and without a disk."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from conftest import draw_photo
from support.fake_captioner import image_file
from support.processes import held

from benchmarks.harness.client import BROKEN, Response, Upload, get, post
from benchmarks.harness.load import load
from benchmarks.harness.server import BROKEN_DISKS, Service, full_disks, serving
from model import Captioner, open_image

ONE = Upload.of(image_file(), overlays="none")
MANY = Upload.of(*[image_file()] * 8, path="/v1/captions:batch", overlays="none")
TIMEOUT = 60  # seconds for what takes one on an idle machine


def fake_service(hold: Path, within: Sequence[str] = (), **settings: str) -> AbstractContextManager[Service]:
    """Two workers with a captioner that needs no weights and finishes no caption while ``hold`` exists."""
    fake = {"workers": "2", "PYTHONPATH": "tests", "FAKE_CAPTION_HOLD": str(hold)}
    return serving(fake | settings, application="support.fake_service:app", within=within)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drills") / "hold"


@pytest.fixture(scope="module")
def two_workers(hold: Path) -> Iterator[Service]:
    """A service shared by the tests, which leave it ready."""
    with fake_service(hold, FAKE_CAPTION_SECONDS="0.2") as started:
        yield started


@contextmanager
def six_in_flight(started: Service, hold: Path) -> Iterator[list[Future[Response]]]:
    """The responses to six requests of many photos; none completes before the block ends."""
    with ThreadPoolExecutor(6) as pool, held(hold):
        responses = [pool.submit(post, started.port, MANY) for _ in range(6)]
        wait_until(lambda: started.metric("caption_inflight") == 6)
        yield responses


def test_shutdown_answers_requests_in_flight(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    with fake_service(hold, FAKE_CAPTION_SECONDS="0.2") as started:
        with six_in_flight(started, hold) as responses:
            started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(TIMEOUT) == 0
        assert [response.result().status for response in responses] == [200] * 6


def test_killed_worker_is_replaced(two_workers: Service, hold: Path) -> None:
    with six_in_flight(two_workers, hold) as responses:
        worker = max(two_workers.workers(), key=two_workers.connections)
        owned = two_workers.connections(worker)
        os.kill(worker, signal.SIGKILL)
    statuses = Counter(response.result().status for response in responses)
    assert owned > 0
    assert statuses == Counter({BROKEN: owned}) + Counter({200: 6 - owned})
    wait_until(lambda: len(set(two_workers.workers()) - {worker}) == 2)
    assert [post(two_workers.port, ONE).status for _ in range(4)] == [200] * 4
    assert two_workers.metric("caption_inflight") == 0  # those of the killed worker are not counted any more


def test_overload_returns_200_or_503_with_retry_after(two_workers: Service, hold: Path) -> None:
    before = two_workers.metric("caption_rejected_total")
    with ThreadPoolExecutor(48) as pool:
        with held(hold):
            sent = [pool.submit(post, two_workers.port, ONE) for _ in range(120)]
            wait_until(lambda: two_workers.metric("caption_rejected_total") > before)
            assert get(two_workers.port, "/healthz").status == 200
        responses = [each.result() for each in sent]
    refused = [response for response in responses if response.status != 200]
    assert 0 < len(refused) < len(responses)
    for response in refused:
        assert (response.status, json.loads(response.body)["status"]) == (503, 503)
        assert response.retry_after is not None
        assert response.retry_after >= 1
    assert two_workers.metric("caption_rejected_total") - before == len(refused)
    assert post(two_workers.port, ONE).status == 200


def test_reload_under_load_drops_no_request(two_workers: Service) -> None:
    before = set(two_workers.workers())
    with load(two_workers.port, [ONE], clients=4) as result:
        wait_until(lambda: len(result.responses) > 4)
        two_workers.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(two_workers.workers()))
        count = len(result.responses)
        wait_until(lambda: len(result.responses) > count + 4)
    assert set(result.statuses()) == {"200"}


def test_concurrent_clients_get_their_own_captions(checkpoint: Path) -> None:
    """A real network, and 16 clients that send the same photos in different orders."""
    photos = [png(seed) for seed in range(12)]
    captioner = Captioner.load(checkpoint)
    expected = [captioner.caption([open_image(photo).image])[0][0] for photo in photos]
    assert len({caption.log_prob for caption in expected}) == len(expected)
    uploads = [Upload.of(photo, overlays="none") for photo in photos]
    with serving({"workers": 2, "checkpoint": checkpoint, "queue": 16, "threads": 20}) as started:

        def check(client: int) -> None:
            for number in Random(client).sample(range(12), 12):
                [caption] = json.loads(post(started.port, uploads[number]).body)["captions"]
                assert caption["caption"] == expected[number].text
                assert caption["log_prob"] == pytest.approx(expected[number].log_prob, abs=1e-3)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(check, range(16)))


def png(seed: int) -> bytes:
    stream = BytesIO()
    draw_photo(seed).save(stream, "PNG")
    return stream.getvalue()


def mounts_are_allowed() -> bool:
    try:
        return subprocess.run([*full_disks(), "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not mounts_are_allowed(), reason="file systems cannot be mounted here")


@pytest.mark.parametrize("disk", ["full_log", pytest.param("full", marks=needs_mounts)])
def test_full_log_or_disk_does_not_stop_captioning(tmp_path: Path, disk: str) -> None:
    with fake_service(tmp_path / "hold", BROKEN_DISKS[disk], HOME="/tmp") as started:
        assert [post(started.port, ONE).status for _ in range(6)] == [200] * 6
        assert started.metric("caption_words_count") == 6


@needs_mounts
def test_full_disks_do_not_hide_clone_in_tmp() -> None:
    with TemporaryDirectory(dir="/tmp") as clone:
        file = Path(clone, "file")
        file.write_text("kept")
        done = subprocess.run([*full_disks(clone), "cat", file], capture_output=True, text=True)
        assert done.stdout == "kept", done.stderr
