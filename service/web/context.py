"""The trace of a request: begun at its head, filled on the way, and read once when it is answered."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from flask import current_app, g, request
from prometheus_client import Gauge
from werkzeug.datastructures import FileStorage

from model import DecodingOptions
from service.web.request_parser import check_body
from service.worker import Captioned, Timings, Worker

_LOGGED_DIGITS = 12  # of a sha256 in hexadecimal: enough to find a photo again
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # anything else could forge log lines


@dataclass
class RequestContext:
    """What headers, logs and metrics report of a request."""

    id: str
    started: float = field(default_factory=time.perf_counter)  # seconds, when its head was read
    timings: Timings = field(default_factory=Timings)  # of queue, decode, encode, text and draw
    photos: list[dict[str, Any]] = field(default_factory=list)  # the captioned ones, as they are logged
    problems: list[dict[str, Any]] = field(default_factory=list)  # of single photos, and of the response

    @property
    def elapsed(self) -> float:
        """Seconds since the head of the request was read."""
        return time.perf_counter() - self.started


def begin_context() -> None:
    """Start the trace of a request, under the id that the client chose or a new one."""
    sent = request.headers.get("X-Request-Id", "")
    g.context = RequestContext(sent if _REQUEST_ID.fullmatch(sent) else uuid4().hex)


def current_context() -> RequestContext:
    """The trace of the current request."""
    context: RequestContext = g.context
    return context


def current_worker() -> Worker:
    """The worker of this process."""
    worker: Worker = current_app.extensions["worker"]
    return worker


def is_caption_request() -> bool:
    """Whether the current request asks for captions: every POST route does."""
    return request.method == "POST" and request.url_rule is not None


def check_admission() -> None:
    """Reject, before its body is read, a request for captions that cannot be served.

    Raises:
        HTTPException: the body is too long, or not a form.
        BusyError: the queue is full.
    """
    if is_caption_request():
        check_body()
        current_worker().check_queue()


@contextmanager
def captioned(upload: FileStorage, options: DecodingOptions) -> Iterator[Captioned]:
    """The captions of an upload; the worker is held until the block ends. Occupy a slot first.

    Raises:
        ImageError: the upload is not an acceptable image.
    """
    context, worker, data = current_context(), current_worker(), upload.read()
    queue_depth: Gauge = current_app.extensions["metrics"].queue_depth
    with ExitStack() as stack:
        with context.timings.measure("queue"), queue_depth.track_inprogress():
            stack.enter_context(worker.hold())
        result = worker.caption(data, options, context.timings)
        photo = result.photo
        context.photos.append(
            {
                "width": photo.width,
                "height": photo.height,
                "format": photo.format,
                "sha256": photo.sha256[:_LOGGED_DIGITS],
                "words": len(result.captions[0].text.split()),
            }
        )
        with context.timings.measure("draw"):
            yield result
