"""The service under load and in trouble: a real gunicorn whose workers are stopped, killed and starved."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
from conftest import draw_photo
from support.fake_captioner import picture
from support.processes import ROOT, free_port, held, running, wait_for

from benchmarks.harness.client import BROKEN, Answer, Upload, ask, crowd, get
from benchmarks.harness.server import Service
from model import Captioner, open_image

ONE = Upload.of(picture(), overlays="none")
MANY = Upload.of(*[picture()] * 8, path="/v1/captions:batch", overlays="none")
SLOW = {"FAKE_CAPTION_SECONDS": "0.2"}  # a photo
FAKE = "support.fake_service:app"
HOLD = "hold"  # beside the log
PATIENCE = 60  # seconds to wait for what takes one on an idle machine
# Commands to run another in: with a standard error that takes nothing, and where nothing but the memory can
# be written to, with folders for temporary files that are full. What the service runs from stays visible
# there, even if it is in such a folder.
FULL_LOG = ("sh", "-ec", 'exec "$@" 2> /dev/full', "sh")
_FULL_FOLDERS = f"""
mount -o remount,bind,ro /
mount --rbind /tmp /mnt
for folder in /tmp /var/tmp; do
    mount -t tmpfs -o size=4k tmpfs $folder
    head -c 4096 /dev/zero > $folder/all
done
for path in {shlex.join({str(ROOT), sys.prefix})}; do
    case $path in /tmp/*)
        mkdir -p "$path"
        mount --bind "/mnt${{path#/tmp}}" "$path"
        mount -o remount,bind,ro "$path"
    esac
done
cd {shlex.quote(str(ROOT))}
exec "$@"
"""
FULL_DISKS = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", _FULL_FOLDERS, "sh")


@contextmanager
def service(
    folder: Path, application: str = FAKE, within: Sequence[str] = (), **settings: str
) -> Iterator[Service]:
    """A gunicorn, as it ships, that is ready."""
    port = free_port()
    environment = {
        "CAPTION_BIND": f"127.0.0.1:{port}",
        "CAPTION_WORKERS": "2",
        "PYTHONPATH": "tests",
        "FAKE_CAPTION_HOLD": str(folder / HOLD),
    }
    command = [*within, "gunicorn", "-c", "service/gunicorn_config.py", application]
    with running(command, folder / "log", environment | settings) as process:
        wait_for(port, "/readyz", process, folder / "log")
        yield Service(process, port, folder / "log")


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that outlives what is done to it."""
    with service(tmp_path_factory.mktemp("drills"), **SLOW) as started:
        yield started


@contextmanager
def six_in_flight(started: Service) -> Iterator[list[Future[Answer]]]:
    """The answers to requests of many photos; none is given before the end of the context."""
    with ThreadPoolExecutor(6) as pool, held(started.log.with_name(HOLD)):
        answers = [pool.submit(ask, started.port, MANY) for _ in range(6)]
        wait_until(lambda: started.metric("caption_inflight") == 6)
        yield answers


def test_shutdown_answers_requests_in_flight(tmp_path: Path) -> None:
    with service(tmp_path, **SLOW) as started:
        with six_in_flight(started) as answers:
            started.process.send_signal(signal.SIGTERM)
        assert started.process.wait(PATIENCE) == 0
        assert [answer.result().status for answer in answers] == [200] * 6


def test_killed_worker_is_replaced(two_workers: Service) -> None:
    with six_in_flight(two_workers) as answers:
        worker = max(two_workers.workers(), key=two_workers.connections)
        owned = two_workers.connections(worker)
        os.kill(worker, signal.SIGKILL)
    statuses = Counter(answer.result().status for answer in answers)
    assert owned > 0
    assert statuses == Counter({BROKEN: owned}) + Counter({200: 6 - owned})
    wait_until(lambda: len(set(two_workers.workers()) - {worker}) == 2)
    assert [ask(two_workers.port, ONE).status for _ in range(4)] == [200] * 4
    assert two_workers.metric("caption_inflight") == 0  # nothing of the dead one is left


def test_overload_returns_200_or_503_with_retry_after(two_workers: Service) -> None:
    before = two_workers.metric("caption_rejected_total")
    with ThreadPoolExecutor(48) as pool:
        with held(two_workers.log.with_name(HOLD)):
            asking = [pool.submit(ask, two_workers.port, ONE) for _ in range(120)]
            wait_until(lambda: two_workers.metric("caption_rejected_total") > before)
            assert get(two_workers.port, "/healthz").status == 200
        answers = [each.result() for each in asking]
    refused = [answer for answer in answers if answer.status != 200]
    assert 0 < len(refused) < len(answers)
    for answer in refused:
        assert (answer.status, json.loads(answer.body)["status"]) == (503, 503)
        assert answer.retry_after is not None
        assert answer.retry_after >= 1
    assert two_workers.metric("caption_rejected_total") - before == len(refused)
    assert ask(two_workers.port, ONE).status == 200


def test_reload_under_load_drops_no_request(two_workers: Service) -> None:
    before = set(two_workers.workers())
    with crowd(two_workers.port, [ONE], clients=4) as result:
        wait_until(lambda: len(result.answers) > 4)
        two_workers.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(two_workers.workers()))
        count = len(result.answers)
        wait_until(lambda: len(result.answers) > count + 4)
    assert set(result.statuses()) == {"200"}


def test_concurrent_clients_get_their_own_captions(tmp_path: Path, checkpoint: Path) -> None:
    """A real network, and 16 clients who send the same photos in orders of their own."""
    photos = [file_of(seed) for seed in range(12)]
    captioner = Captioner.load(checkpoint)
    expected = [captioner.caption([open_image(each).image])[0][0] for each in photos]
    assert len({caption.log_prob for caption in expected}) == len(expected)
    uploads = [Upload.of(each, overlays="none") for each in photos]
    settings = {"CAPTION_CHECKPOINT": str(checkpoint), "CAPTION_QUEUE": "16", "CAPTION_THREADS": "20"}
    with service(tmp_path, "service.app:create_app()", **settings) as started:

        def check(client: int) -> None:
            for place in Random(client).sample(range(12), 12):
                [caption] = json.loads(ask(started.port, uploads[place]).body)["captions"]
                assert caption["caption"] == expected[place].text
                assert caption["log_prob"] == pytest.approx(expected[place].log_prob, abs=1e-3)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(check, range(16)))


def file_of(seed: int) -> bytes:
    stream = BytesIO()
    draw_photo(seed).save(stream, "PNG")
    return stream.getvalue()


def mounts_are_allowed() -> bool:
    try:
        return subprocess.run([*FULL_DISKS, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "within",
    [
        pytest.param(FULL_LOG, id="log"),
        pytest.param(
            FULL_DISKS,
            id="disks",
            marks=pytest.mark.skipif(not mounts_are_allowed(), reason="file systems cannot be mounted here"),
        ),
    ],
)
def test_full_log_or_disk_does_not_stop_captioning(tmp_path: Path, within: Sequence[str]) -> None:
    with service(tmp_path, within=within, HOME="/tmp") as started:
        assert [ask(started.port, ONE).status for _ in range(6)] == [200] * 6
        assert started.metric("caption_words_count") == 6
