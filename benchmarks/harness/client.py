"""Clients of the service: one request, or a crowd that asks again and again.

They are threads of one process, light beside captioning; ``Crowd.cpu_seconds`` says how light.
"""

from __future__ import annotations

import http.client
import io
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

TIMEOUT = 60.0  # seconds without a byte; then the client counts as hanging
BROKEN = 0  # instead of a status: the connection broke, or nothing came


class Answer(NamedTuple):
    """What became of a request."""

    began: float  # seconds of the monotonic clock
    seconds: float
    status: int  # BROKEN if there was none
    retry_after: float | None  # seconds
    body: bytes


@dataclass(frozen=True)
class Upload:
    """A request with photos, made up beforehand."""

    path: str
    body: bytes
    kind: str  # of the content

    @classmethod
    def of(cls, *photos: bytes, path: str = "/v1/captions", **options: str) -> Upload:
        """Photos as a browser would send them."""
        files = [FileStorage(io.BytesIO(photo), "a.jpg") for photo in photos]
        form = {"image": files, **options}
        boundary, body = encode_multipart(form)
        return cls(path, body, f"multipart/form-data; boundary={boundary}")


def get(port: int, path: str) -> Answer:
    """The answer to a request without a body."""
    return _exchange(port, "GET", path, None, {})


def ask(port: int, upload: Upload) -> Answer:
    """The answer to a request with photos, over a connection of its own."""
    return _exchange(port, "POST", upload.path, upload.body, {"Content-Type": upload.kind})


def ask_patiently(port: int, upload: Upload) -> Answer:
    """The answer once there is another than to come again later."""
    while (answer := ask(port, upload)).retry_after:
        time.sleep(answer.retry_after)
    return answer


def _exchange(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    began, connection = time.monotonic(), http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        # Who is refused before all was sent can still read what was answered.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, headers)
        response = connection.getresponse()
        waits = response.headers["Retry-After"]
        content = response.read()
        status, retry_after = response.status, None if waits is None else float(waits)
    except (OSError, http.client.HTTPException):
        status, retry_after, content = BROKEN, None, b""
    finally:
        connection.close()
    return Answer(began, time.monotonic() - began, status, retry_after, content)


@dataclass
class Crowd:
    """What a crowd of clients was answered."""

    answers: list[Answer] = field(default_factory=list)
    began: float = 0.0  # seconds of the monotonic clock
    ended: float = 0.0
    cpu_seconds: float = 0.0  # the clients' own

    def statuses(self) -> dict[str, int]:
        """How often each status was answered; "0" is a broken connection."""
        counts = Counter(answer.status for answer in self.answers)
        return {str(status): counts[status] for status in sorted(counts)}

    def rate(self) -> float:
        """Captioned requests a second, between the beginning and the end."""
        done = (answer.began + answer.seconds for answer in self.answers if answer.status == 200)
        return sum(self.began <= moment <= self.ended for moment in done) / (self.ended - self.began)

    def milliseconds(self, status: int = 200) -> list[float]:
        """How long each request took that was answered with ``status``."""
        return [1000 * answer.seconds for answer in self.answers if answer.status == status]


@contextmanager
def crowd(port: int, uploads: Sequence[Upload], clients: int, is_polite: bool = True) -> Iterator[Crowd]:
    """Clients that ask for as long as it is entered; those that have asked are then still answered.

    Args:
        port: of the service.
        uploads: each client sends all of them again and again, beginning with another one.
        clients: how many ask at the same time.
        is_polite: whether who is told to come again later does so, or at once.
    """
    result, stop = Crowd(), threading.Event()

    def keep_asking(first: int) -> None:
        turn = first
        while not stop.is_set():
            answer = ask(port, uploads[turn % len(uploads)])
            result.answers.append(answer._replace(body=b""))  # thousands of them would fill the memory
            turn += 1
            if is_polite and answer.retry_after:
                stop.wait(answer.retry_after)

    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(clients)]
    cpu, result.began = time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        result.ended, result.cpu_seconds = time.monotonic(), time.process_time() - cpu
        stop.set()
        for thread in threads:
            thread.join()


def settle_in(result: Crowd, seconds: float) -> None:
    """Let a crowd get going for a while, and count from then on."""
    time.sleep(seconds)
    result.began = time.monotonic()


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` per cent do not exceed; nan of none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]
