"""What needs a real server and real sockets: slow, broken and oversized connections."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from conftest import draw_photo
from support.bad_inputs import encoded, form, photo, upload
from support.processes import ROOT, ask, ask_for_caption, free_port, running, wait_for

MAX_BYTES = 1_000_000
THREADS = 80  # more than ever ask at once here
SECONDS = 0.05  # that a caption takes


class Service(NamedTuple):
    """A running service with one process that captions, and what it wrote."""

    port: int
    worker: int
    log: Path

    def memory(self, name: str) -> int:
        """Bytes in memory: ``VmRSS`` now, ``VmHWM`` at most so far."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port, log = free_port(), tmp_path_factory.mktemp("service") / "log"
    environment = {
        "CAPTION_BIND": f"127.0.0.1:{port}",
        "CAPTION_WORKERS": "1",
        "CAPTION_THREADS": str(THREADS),
        "CAPTION_MAX_BYTES": str(MAX_BYTES),
        "FAKE_CAPTION_SECONDS": str(SECONDS),
        "PYTHONPATH": str(ROOT / "tests"),
        "TMPDIR": "/nowhere/at/all",
    }
    command = ["gunicorn", "-c", "service/gunicorn_config.py", "support.fake_service:app"]
    with running(command, log, environment) as process:
        wait_for(port, "/readyz", process, log)
        [worker] = psutil.Process(process.pid).children()
        yield Service(port, worker.pid, log)


@pytest.fixture
def service(started: Service) -> Iterator[Service]:
    """The service; afterwards it must be the same process, as well as before, without a complaint."""
    before = started.log.stat().st_size
    yield started
    assert ask_for_caption(started.port, photo("JPEG")).status == 200
    assert psutil.pid_exists(started.worker)
    written = started.log.read_bytes()[before:].decode()
    assert "Traceback" not in written
    assert '"ERROR"' not in written.upper()


def say(port: int, *said: bytes, ends: bool = False) -> bytes:
    """All that is answered to these bytes until the server hangs up, or for some seconds nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        for some in said:
            client.sendall(some)
        if ends:
            client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while some := client.recv(65536):
                answer += some
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def head(*headers: str, path: str = "/v1/captions", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


HOST = "Host: a"
FORM = "Content-Type: multipart/form-data; boundary=b"


def test_short_body_is_refused(service: Service) -> None:
    answer = say(service.port, head(HOST, FORM, "Content-Length: 1000"), b"--b\r\nContent-Dis", ends=True)
    assert answer == b"" or status(answer) == 400


CONTRADICTIONS = {
    "negative length": ("Content-Length: -1",),
    "length in words": ("Content-Length: many",),
    "two lengths": ("Content-Length: 3", "Content-Length: 4"),
    "length and chunks": ("Content-Length: 3", "Transfer-Encoding: chunked"),
    "two hosts": ("Host: b", "Content-Length: 0"),
    "a space before the colon": ("Content-Length : 3",),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradicting_headers_are_refused(service: Service, name: str) -> None:
    assert status(say(service.port, head(HOST, FORM, *CONTRADICTIONS[name]), b"abc")) == 400


def test_long_urls_and_headers_are_refused(service: Service) -> None:
    assert status(say(service.port, head(HOST, path="/?" + "a" * 5000, method="GET"))) == 414
    many = [f"X-Header-{n}: 1" for n in range(150)]
    assert status(say(service.port, head(HOST, *many, path="/healthz", method="GET"))) == 431
    assert (
        status(say(service.port, head(HOST, "X-Long: " + "a" * 10_000, path="/healthz", method="GET"))) == 431
    )


def test_boundary_of_10_kb_returns_431(service: Service) -> None:
    assert status(say(service.port, head(HOST, FORM + "b" * 10_000, "Content-Length: 3"), b"abc")) == 431


def test_chunked_bodies_are_refused(service: Service) -> None:
    for body in (b"5\r\nhello\r\n0\r\n\r\n", b"fffffff\r\nhello", b"-1\r\n\r\n", b"zz\r\n\r\n"):
        answer = say(service.port, head(HOST, FORM, "Transfer-Encoding: chunked"), body)
        assert status(answer) in (400, 411)


def test_expect_continue_returns_413_before_the_body(service: Service) -> None:
    asking = head(HOST, FORM, f"Content-Length: {MAX_BYTES + 1}", "Expect: 100-continue")
    final = say(service.port, asking).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status(final) == 413
    assert b"application/problem+json" in final


def dribble(port: int, kind: int, stop: threading.Event) -> None:
    """Be slow in one of three ways: say nothing, send a header or a body byte by byte."""
    slowly = [b"", b"GET /healthz HTTP/1.1\r\nX-Slow: ", head(HOST, FORM, "Content-Length: 1000")][kind]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(slowly)
        while not stop.wait(0.2):
            if kind:
                client.sendall(b"a")


def test_slow_clients_do_not_block_others(service: Service) -> None:
    """More of them need the nginx of deploy/ before the service."""
    stop = threading.Event()
    with ThreadPoolExecutor(40) as slow:
        try:
            clients = [slow.submit(dribble, service.port, number % 3, stop) for number in range(40)]
            time.sleep(1)
            assert not any(client.done() for client in clients)
            for _ in range(5):
                assert ask(service.port, "/healthz").status == 200
                assert ask_for_caption(service.port, photo("JPEG")).status == 200
        finally:
            stop.set()


def caption_request(data: bytes) -> bytes:
    body = form({"image": upload(data)})
    return (
        head(HOST, f"Content-Type: {body['content_type']}", f"Content-Length: {len(body['data'])}")
        + body["data"]
    )


def test_clients_may_disconnect_while_sending(service: Service) -> None:
    request = caption_request(photo("BMP"))
    for share in (0.1, 0.3, 0.6, 0.99) * 5:
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(request[: int(len(request) * share)])


def test_clients_may_disconnect_while_waiting(service: Service) -> None:
    request = caption_request(photo("JPEG"))
    for _ in range(20):  # more than there are places
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(request)
            # Not closed but broken off, as by a computer that is switched off.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    deadline = time.monotonic() + 60
    while ask_for_caption(service.port, photo("JPEG")).status != 200:
        assert time.monotonic() < deadline
        time.sleep(SECONDS)


def test_64_largest_uploads_return_200_or_503(service: Service) -> None:
    image = encoded(draw_photo(1, (600, 400)))
    largest = image + bytes(MAX_BYTES - 2000 - len(image))  # with the form around it
    ask_for_caption(service.port, largest)
    before = service.memory("VmRSS")
    with ThreadPoolExecutor(64) as clients:
        answers = list(clients.map(lambda _: ask_for_caption(service.port, largest), range(64)))
    assert {answer.status for answer in answers} <= {200, 503}
    assert [answer.status for answer in answers].count(200) >= 9  # one at work, eight in the queue
    assert all(
        answer.problem and int(answer.headers["Retry-After"]) > 0
        for answer in answers
        if answer.status == 503
    )
    # Every upload once as it came and once as it is read, and something for the captioner.
    assert service.memory("VmHWM") - before < 2 * 64 * MAX_BYTES + 50_000_000


def test_request_in_small_pieces_is_captioned(service: Service) -> None:
    request = caption_request(photo("PNG"))
    pieces = [request[start : start + 7] for start in range(0, len(request), 7)]
    assert status(say(service.port, *pieces)) == 200


def test_pipelined_requests_are_separate(service: Service) -> None:
    """Nothing that follows the body of one may become part of it."""
    first = caption_request(photo("PNG")).replace(b"Connection: close", b"Connection: keep-alive")
    answer = say(service.port, first + head(HOST, path="/healthz", method="GET"))
    assert answer.count(b"HTTP/1.1 200") == 2


def test_non_http_bytes_are_refused(service: Service) -> None:
    with ExitStack() as open_sockets:
        for said in (b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n", b"\0" * 100, b"\r\n\r\n\r\n\r\n"):
            client = open_sockets.enter_context(
                socket.create_connection(("127.0.0.1", service.port), timeout=60)
            )
            client.sendall(said + b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(1000)
            assert answer == b"" or status(answer) in (400, 405, 431, 501)
