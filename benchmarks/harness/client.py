"""HTTP client of the service: one request over a connection of its own."""

import http.client
import io
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Self

from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

TIMEOUT = 60.0  # seconds without a byte, after which the connection counts as broken
BROKEN = 0  # in place of a status code: the connection broke or timed out


class Response(NamedTuple):
    """The outcome of a request."""

    started: float  # seconds of the monotonic clock
    seconds: float
    status: int  # or BROKEN
    retry_after: float | None  # seconds
    body: bytes


@dataclass(frozen=True)
class Upload:
    """A request with photos, encoded beforehand."""

    path: str
    body: bytes
    content_type: str

    @classmethod
    def of(cls, *photos: bytes, path: str = "/v1/captions", **options: str) -> Self:
        """The photos as a multipart form, as a browser sends them."""
        files = [FileStorage(io.BytesIO(photo), "a.jpg") for photo in photos]
        boundary, body = encode_multipart({"image": files, **options})
        return cls(path, body, f"multipart/form-data; boundary={boundary}")


def get(port: int, path: str) -> Response:
    """Send a GET request."""
    return _exchange(port, "GET", path, None, {})


def post(port: int, upload: Upload) -> Response:
    """Send photos."""
    return _exchange(port, "POST", upload.path, upload.body, {"Content-Type": upload.content_type})


def post_with_retries(port: int, upload: Upload) -> Response:
    """Send photos, and again after ``Retry-After`` for as long as responses have it."""
    while (response := post(port, upload)).retry_after:
        time.sleep(response.retry_after)
    return response


def _exchange(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Response:
    started, connection = time.monotonic(), http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        # A request that is refused before it was sent entirely still has a response.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, headers)
        response = connection.getresponse()
        header = response.headers["Retry-After"]
        content = response.read()
        status, retry_after = response.status, None if header is None else float(header)
    except (OSError, http.client.HTTPException):
        status, retry_after, content = BROKEN, None, b""
    finally:
        connection.close()
    return Response(started, time.monotonic() - started, status, retry_after, content)
