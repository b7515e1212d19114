"""nginx with the files of deploy/: slow clients, limits, failover and its own errors."""

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.fake_captioner import image_file
from support.processes import ROOT, ask, ask_for_caption, free_port, running, wait_for

from service.config import ServiceConfig

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
MAX_BYTES = ServiceConfig().max_bytes

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def as_deployed(folder: Path, port: int, upstreams: Sequence[int]) -> None:
    """The files of deploy/ in ``folder``; of their addresses alone others are made."""
    shutil.copy(DEPLOY / "nginx.conf", folder)
    listen = (DEPLOY / "listen.conf").read_text()
    (folder / "listen.conf").write_text(listen.replace("8080", f"127.0.0.1:{port}"))
    upstream = (DEPLOY / "upstream.conf").read_text()
    [line] = re.findall(r" *server captioner:8000 .*\n", upstream)
    lines = (line.replace("captioner:8000", f"127.0.0.1:{number}") for number in upstreams)
    (folder / "upstream.conf").write_text(upstream.replace(line, "".join(lines)))


@contextmanager
def nginx_before(folder: Path, *upstreams: int) -> Iterator[int]:
    """The port of an nginx before these."""
    port = free_port()
    as_deployed(folder, port, upstreams)
    command = [
        str(NGINX),
        "-p",
        f"{folder}/",
        "-c",
        str(folder / "nginx.conf"),
        "-g",
        "daemon off; user root;",
    ]
    log = folder / "nginx.log"
    with running(command, log) as process:
        wait_for(port, "/healthz", process, log)
        yield port


class Recorder:
    """An upstream that notes what it is asked, and answers once it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.breaks_off = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self.server.server_address[1]

    def _handler(recorder) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer()
                    return
                recorder.asked.append((self.path, dict(self.headers)))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                recorder.may_answer.wait(60)
                if not recorder.breaks_off:
                    self._answer()

            do_POST = do_GET

            def _answer(self) -> None:
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the screen."""

        return Handler


@contextmanager
def recorders(count: int) -> Iterator[list[Recorder]]:
    started = [Recorder() for _ in range(count)]
    threads = [threading.Thread(target=each.server.serve_forever) for each in started]
    for thread in threads:
        thread.start()
    try:
        yield started
    finally:
        for each, thread in zip(started, threads, strict=True):
            each.may_answer.set()
            each.server.shutdown()
            each.server.server_close()
            thread.join()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[tuple[Recorder, int]]:
    with recorders(1) as [upstream], nginx_before(tmp_path, upstream.port) as port:
        yield upstream, port


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port of nginx and the port of the service behind it, which has few threads."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    environment = {
        "CAPTION_BIND": f"127.0.0.1:{port}",
        "CAPTION_WORKERS": "1",
        "CAPTION_THREADS": "10",
        "CAPTION_QUEUE": "8",
        "CAPTION_TRUSTED_PROXIES": "1",
        "PYTHONPATH": str(ROOT / "tests"),
    }
    command = ["gunicorn", "-c", "service/gunicorn_config.py", "support.fake_service:app"]
    with running(command, folder / "service.log", environment) as process:
        wait_for(port, "/readyz", process, folder / "service.log")
        with nginx_before(folder, port) as front:
            yield front, port


def head(length: int) -> bytes:
    return (
        b"POST /v1/captions HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )


def test_config_is_valid(tmp_path: Path) -> None:
    as_deployed(tmp_path, 8080, [8000])
    command = [str(NGINX), "-t", "-p", f"{tmp_path}/", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def dribble(port: int, kind: int, stop: threading.Event) -> None:
    """Be slow in one of three ways: say nothing, send a header or a body byte by byte."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall([b"", b"GET /healthz HTTP/1.1\r\nX-Slow: ", head(1000)][kind])
        while not stop.wait(0.3):
            if kind:
                client.sendall(b"a")


def test_slow_clients_do_not_block_others(service: tuple[int, int]) -> None:
    """They are four times as many as the service has threads."""
    front, _ = service
    stop = threading.Event()
    with ThreadPoolExecutor(40) as slow:
        try:
            clients = [slow.submit(dribble, front, number % 3, stop) for number in range(40)]
            time.sleep(1)
            assert not any(client.done() for client in clients)
            for _ in range(8):
                assert ask(front, "/healthz").status == 200
                assert ask_for_caption(front, image_file()).status == 200
        finally:
            stop.set()


def test_upload_is_buffered_before_proxying(recorder: tuple[Recorder, int]) -> None:
    upstream, port = recorder
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head(6))
        for letter in b"photo":
            client.sendall(bytes([letter]))
            time.sleep(0.1)
        assert upstream.asked == []
        client.sendall(b"!")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert [path for path, _ in upstream.asked] == ["/v1/captions"]


def test_least_busy_captioner_is_chosen(tmp_path: Path) -> None:
    with recorders(2) as both, nginx_before(tmp_path, *(each.port for each in both)) as port:
        for each in both:
            each.may_answer.clear()
        with ThreadPoolExecutor(1) as waiting:
            first = waiting.submit(ask_for_caption, port, image_file())
            while not any(each.asked for each in both):
                time.sleep(0.05)
            busy, free = sorted(both, key=lambda each: -len(each.asked))
            free.may_answer.set()
            assert [ask_for_caption(port, image_file()).status for _ in range(4)] == [200] * 4
            busy.may_answer.set()
            assert first.result().status == 200
        assert (len(busy.asked), len(free.asked)) == (1, 4)


def test_failed_photo_is_not_retried(tmp_path: Path) -> None:
    with recorders(2) as both, nginx_before(tmp_path, *(each.port for each in both)) as port:
        for each in both:
            each.breaks_off = True
        answer = ask_for_caption(port, image_file())
        assert (answer.problem["status"], answer.headers["Retry-After"]) == (502, "5")
        assert sum(len(each.asked) for each in both) == 1


def test_unavailable_captioner_is_skipped(tmp_path: Path) -> None:
    with recorders(1) as [upstream], socket.socket() as away:
        away.bind(("127.0.0.1", 0))  # nobody listens, and nobody else gets it
        with nginx_before(tmp_path, away.getsockname()[1], upstream.port) as port:
            assert [ask_for_caption(port, image_file()).status for _ in range(4)] == [200] * 4


def test_forwarded_headers_of_clients_are_dropped(recorder: tuple[Recorder, int]) -> None:
    upstream, port = recorder
    ask(port, "/", X_Forwarded_For="1.2.3.4", X_Forwarded_Proto="https", X_Request_Id="a b")
    [(_, headers)] = upstream.asked
    assert (headers["X-Forwarded-For"], headers["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert re.fullmatch("[0-9a-f]{32}", headers["X-Request-Id"])


def test_connection_limit_returns_429(
    recorder: tuple[Recorder, int],
) -> None:
    _, port = recorder
    with ExitStack() as open_sockets:
        for _ in range(16):
            client = open_sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(head(1000))
        time.sleep(1)
        answer = ask_for_caption(port, image_file())
        assert (answer.problem["status"], answer.headers["Retry-After"]) == (429, "1")
        assert ask(port, "/healthz").status == 200


def test_oversized_request_is_refused_early(service: tuple[int, int]) -> None:
    front, _ = service
    with socket.create_connection(("127.0.0.1", front), timeout=60) as client:
        client.sendall(head(MAX_BYTES + MAX_BYTES // 5))
        said = client.makefile("rb").read()
    assert said.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in said
    assert f"larger than {MAX_BYTES // 1_000_000} MB".encode() in said


@pytest.mark.parametrize(
    ("excess", "kind", "status"), [(10_000, "multipart/form-data", 413), (-9_000, "text/plain", 415)]
)
def test_early_refusal_reaches_the_client(
    service: tuple[int, int], excess: int, kind: str, status: int
) -> None:
    """nginx has the whole body, and must not find the connection closed before it has passed it on."""
    front, _ = service
    for _ in range(6):  # it is a race
        answer = ask(front, "/v1/captions", "POST", b"x" * (MAX_BYTES + excess), Content_Type=kind)
        assert answer.problem["status"] == status


def test_nginx_errors_are_problem_documents(service: tuple[int, int]) -> None:
    front, _ = service
    assert ask(front, "/" + "a" * 5000).problem["status"] == 414
    assert ask(front, "/", X_Long="a" * 5000).problem["status"] == 431
    assert ask(front, "/metrics", X_Request_Id="mine-1").problem["request_id"] == "mine-1"


def test_no_captioner_returns_503_with_retry_after(tmp_path: Path) -> None:
    with recorders(1) as [upstream], nginx_before(tmp_path, upstream.port) as port:
        upstream.server.shutdown()
        upstream.server.server_close()
        answer = ask_for_caption(port, image_file())
        assert (answer.problem["status"], answer.headers["Retry-After"]) == (502, "5")


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?a=1", "//metrics", "/%6detrics", "/a/../metrics", "/metrics/"]
)
def test_metrics_are_not_public(service: tuple[int, int], path: str) -> None:
    front, behind = service
    assert ask(front, path).status == 404
    assert ask(behind, "/metrics").status == 200
