"""A real gunicorn: its log, the metrics of several processes, and load and fault tests: overloaded, stopped,
killed, reloaded and without a disk.

Every start imports torch, so tests share a service where they can.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from support.fake_captioner import image_file
from support.processes import PATH, ROOT, free_port, held

from benchmarks.harness.client import BROKEN, Response, Upload, get, post
from benchmarks.harness.load import load
from benchmarks.harness.server import BROKEN_DISKS, Service, full_disks, serving

ONE = Upload.of(image_file(), overlays="none")
THREE = Upload.of(*[image_file()] * 3, path="/v1/captions:batch", overlays="none")
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


@contextmanager
def six_in_flight(started: Service, hold: Path) -> Iterator[list[Future[Response]]]:
    """The responses to six requests of three photos; none completes before the block ends."""
    with ThreadPoolExecutor(6) as pool, held(hold):
        responses = [pool.submit(post, started.port, THREE) for _ in range(6)]
        wait_until(lambda: started.metric("caption_inflight") == 6)
        yield responses


def replace_worker(started: Service, worker: int, how: signal.Signals) -> None:
    os.kill(worker, how)
    wait_until(lambda: len(set(started.workers()) - {worker}) == 2)


def metrics_folders(process: int) -> list[Path]:
    pattern = f"sightline-{process}-*"
    return [folder for parent in ("/dev/shm", "/tmp") for folder in Path(parent).glob(pattern)]


def metrics_folder(started: Service) -> Path:
    """Where the processes add up."""
    [folder] = metrics_folders(started.process.pid)
    return folder


# A service that does not start

# Takes long to load, and swallows exceptions as imports may; or loads at once.
LOADING_APP = """
import os, pathlib, time
pathlib.Path(os.environ["STARTED"]).touch()
try:
    time.sleep(float(os.environ["SECONDS"]))
except BaseException:
    raise ImportError from None
app = print
"""


@contextmanager
def starting(folder: Path, port: int, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """A gunicorn that is loading ``LOADING_APP``, with its metrics in their folder."""
    (folder / "loading.py").write_text(LOADING_APP)
    started = folder / "started"
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "service/gunicorn_config.py", "loading:app"],
        cwd=ROOT,
        env={
            **{"PATH": PATH, "PYTHONPATH": str(folder), "CAPTION_BIND": f"127.0.0.1:{port}"},
            **{"STARTED": str(started), "SECONDS": str(seconds)},
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: started.exists() or process.poll() is not None)
        assert len(metrics_folders(process.pid)) == 1
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stop_while_loading_is_one_line(how: signal.Signals, tmp_path: Path) -> None:
    with starting(tmp_path, free_port(), seconds=TIMEOUT) as process:
        process.send_signal(how)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "\nThe service was stopped before it was ready.\n")
    assert metrics_folders(process.pid) == []


def test_port_in_use_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with starting(tmp_path, port, seconds=0) as process:
            _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "set CAPTION_BIND" in json.loads(errors.splitlines()[-1])["message"]
    assert metrics_folders(process.pid) == []


# A service that was stopped


class Stopped(NamedTuple):
    """What a service leaves that captioned, was sent what is no HTTP, lost a client, and was stopped while it
    had requests."""

    exit_status: int
    last_statuses: list[int]  # of the requests it had
    log: list[dict[str, Any]]
    metrics_folder: Path
    metrics_mode: int


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    hold = tmp_path_factory.mktemp("stopped") / "hold"
    with fake_service(hold, FAKE_CAPTION_SECONDS="0.05") as started:
        folder = metrics_folder(started)
        mode = folder.stat().st_mode & 0o777
        assert post(started.port, ONE).status == 200
        assert b" 400 " in sent(started.port, b"GET /private-matter HTTP/7.7\r\nHost: x\r\n\r\n")
        head = b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
        go_away_while(started.port, head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n")
        assert post(started.port, ONE).status == 200
        with six_in_flight(started, hold) as responses:
            started.process.send_signal(signal.SIGTERM)
        status = started.process.wait(TIMEOUT)
        log = [json.loads(line) for line in started.log.read_text().splitlines()]
    return Stopped(status, [response.result().status for response in responses], log, folder, mode)


def sent(port: int, request: bytes) -> bytes:
    """The answer to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        client.sendall(request)
        return client.recv(1000)


def go_away_while(port: int, request: bytes) -> None:
    """Send the first part of a request, and reset the connection when the service waits for the rest."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        client.sendall(request)
        assert get(port, "/healthz").status == 200
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_shutdown_answers_requests_in_flight(stopped: Stopped) -> None:
    assert stopped.exit_status == 0
    assert stopped.last_statuses == [200] * 6


def test_metrics_folder_is_private_and_removed(stopped: Stopped) -> None:
    assert stopped.metrics_mode == 0o700
    assert not stopped.metrics_folder.exists()


def test_log_lines_are_json(stopped: Stopped) -> None:
    assert all({"ts", "level", "logger", "message"} <= set(line) for line in stopped.log)
    assert {line["logger"] for line in stopped.log} == {"gunicorn.error", "service.access"}


def test_request_is_logged_once(stopped: Stopped) -> None:
    routes = Counter(line["route"] for line in stopped.log if line["logger"] == "service.access")
    assert routes["/v1/captions:batch"] == 6
    assert routes["/v1/captions"] in (2, 3)  # the one that went away may be gone before it is understood


def test_client_disconnect_is_not_an_error(stopped: Stopped) -> None:
    assert not [line for line in stopped.log if line["level"] in ("ERROR", "CRITICAL")]
    assert not [line for line in stopped.log if "traceback" in line]


def test_non_http_is_logged_without_content(stopped: Stopped) -> None:
    [warning] = [line for line in stopped.log if line["level"] == "WARNING"]
    assert warning["message"] == "Invalid request"
    assert "private-matter" not in json.dumps(stopped.log)


# A service shared by tests, which leave it ready


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drills") / "hold"


@pytest.fixture(scope="module")
def two_workers(hold: Path) -> Iterator[Service]:
    with fake_service(hold, FAKE_CAPTION_SECONDS="0.05") as started:
        yield started


def test_killed_worker_is_replaced(two_workers: Service, hold: Path) -> None:
    with six_in_flight(two_workers, hold) as responses:
        worker = max(two_workers.workers(), key=two_workers.connections)
        owned = two_workers.connections(worker)
        os.kill(worker, signal.SIGKILL)
    statuses = Counter(response.result().status for response in responses)
    assert owned > 1  # one is captioned, others wait
    assert statuses == Counter({BROKEN: owned}) + Counter({200: 6 - owned})
    wait_until(lambda: len(set(two_workers.workers()) - {worker}) == 2)
    assert [post(two_workers.port, ONE).status for _ in range(4)] == [200] * 4
    # Those of the killed worker are not counted any more.
    assert two_workers.metric("caption_inflight") == two_workers.metric("caption_queue_depth") == 0


def test_metrics_outlive_their_worker(two_workers: Service, hold: Path) -> None:
    """Its successor continues its files: nothing is lost, nor do files pile up."""
    before = two_workers.metric("caption_words_count")
    for replaced, how in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), start=1):
        with six_in_flight(two_workers, hold) as responses:
            busiest = max(two_workers.workers(), key=two_workers.connections)
        assert [response.result().status for response in responses] == [200] * 6
        replace_worker(two_workers, busiest, how)
        assert two_workers.metric("caption_words_count") == before + replaced * 6 * 3
    writers = {file.stem.rpartition("_")[2] for file in metrics_folder(two_workers).iterdir()}
    # Twice as many as there are processes: when reloading, the old and the new live side by side.
    assert writers <= {str(two_workers.process.pid), "worker1", "worker2", "worker3", "worker4"}


def test_overload_returns_200_or_503_with_retry_after(two_workers: Service, hold: Path) -> None:
    """Two processes hold 18 requests, so 26 clients at once suffice."""
    before = two_workers.metric("caption_rejected_total")
    with ThreadPoolExecutor(26) as pool:
        with held(hold):
            sent = [pool.submit(post, two_workers.port, ONE) for _ in range(40)]
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
    before, counted = set(two_workers.workers()), two_workers.metric("caption_words_count")
    with load(two_workers.port, [ONE], clients=4) as result:
        wait_until(lambda: len(result.responses) > 4)
        two_workers.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(two_workers.workers()))
        count = len(result.responses)
        wait_until(lambda: len(result.responses) > count + 4)
    assert set(result.statuses()) == {"200"}
    assert two_workers.metric("caption_words_count") == counted + len(result.responses)


# Without a disk


def mounts_are_allowed() -> bool:
    try:
        return subprocess.run([*full_disks(), "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


MOUNTS_ARE_ALLOWED = mounts_are_allowed()


def test_full_log_and_disk_do_not_stop_captioning() -> None:
    """With the shipped checkpoint, whose torchvision needs a folder for temporary files."""
    within = BROKEN_DISKS["full"] if MOUNTS_ARE_ALLOWED else ()
    settings = {"workers": "1", "HOME": "/tmp"}
    with serving(settings, within=(*within, *BROKEN_DISKS["full_log"])) as started:
        assert [post(started.port, ONE).status for _ in range(2)] == [200] * 2
        assert started.metric("caption_words_count") == 2


@pytest.mark.skipif(not MOUNTS_ARE_ALLOWED, reason="file systems cannot be mounted here")
def test_full_disks_do_not_hide_clone_in_tmp() -> None:
    with TemporaryDirectory(dir="/tmp") as clone:
        file = Path(clone, "file")
        file.write_text("kept")
        done = subprocess.run([*full_disks(clone), "cat", file], capture_output=True, text=True)
        assert done.stdout == "kept", done.stderr
