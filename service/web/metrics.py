"""What Prometheus is told: requests, stages, what waits, what was refused, what was captioned.

Where ``PROMETHEUS_MULTIPROC_DIR`` is set when this is imported, the processes write their figures there and
GET /metrics answers with the sum of all of them; without it, with those of this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, current_app, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from model import Caption, Photo
from service.web.context import asks_for_captions, seconds_since_arrival

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_REQUEST_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_STAGE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
_MEGAPIXELS = (0.1, 0.3, 1, 3, 8, 12, 24, 50)
_WORDS = (2, 4, 6, 8, 10, 12, 15, 20, 30)
# Why a request was refused: by the type of the problem or, where that says nothing, by its status.
_REASONS = {
    "/problems/image-limit": "image_limit",
    400: "malformed",
    401: "unauthorized",
    411: "no_length",
    413: "too_large",
    415: "unsupported",
    422: "undecodable",
    429: "rate_limited",
    503: "busy",
}


class Metrics:
    """The figures of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("caption_requests", "Requests answered", ("route", "code"), **own)
        self.seconds = Histogram(
            "caption_request_duration_seconds",
            "From the head of a request to its answer, the upload included",
            ("route",),
            buckets=_REQUEST_SECONDS,
            **own,
        )
        self.stages = Histogram(
            "caption_stage_seconds", "Of a request for captions", ("stage",), buckets=_STAGE_SECONDS, **own
        )
        live = own | {"multiprocess_mode": "livesum"}
        self.inflight = Gauge("caption_inflight", "Requests for captions that are not answered yet", **live)
        self.waiting = Gauge("caption_queue_depth", "Photos that wait for the captioner", **live)
        self.rejected = Counter("caption_rejected", "Photos refused, and why", ("reason",), **own)
        self.megapixels = Histogram(
            "caption_image_megapixels", "Of captioned photos", buckets=_MEGAPIXELS, **own
        )
        self.words = Histogram("caption_words", "Of the best caption", buckets=_WORDS, **own)
        self.model = Gauge(
            "caption_model_info", "The captioner served: 1", ("sha",), multiprocess_mode="livemax", **own
        )


def register_metrics(app: Flask) -> None:
    """Count what ``app`` does, and answer GET /metrics."""
    app.extensions["metrics"] = Metrics()
    app.before_request(_begin)
    app.after_request(_observe_answer)
    app.teardown_request(_end)
    app.add_url_rule("/metrics", view_func=exposition)


def exposition() -> Response:
    """The figures as Prometheus reads them."""
    metrics = _metrics()
    # Told anew at every scrape: a fork leaves behind what was told before it.
    metrics.model.labels(current_app.extensions["inference"].captioner.info.sha256).set(1)
    registry = metrics.registry
    if MULTIPROCESS_FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def observe_caption(photo: Photo, captions: Sequence[Caption]) -> None:
    """Count a captioned photo; ``captions`` come best first."""
    metrics = _metrics()
    metrics.megapixels.observe(photo.width * photo.height / 1e6)
    metrics.words.observe(len(captions[0].text.split()))


def observe_rejected(problem: Mapping[str, Any]) -> None:
    """Count a refusal by the ``type`` and ``status`` of its problem."""
    if reason := _REASONS.get(problem["type"]) or _REASONS.get(problem["status"]):
        _metrics().rejected.labels(reason).inc()


@contextmanager
def waiting() -> Iterator[None]:
    """Count a photo as waiting for the captioner, for as long as it is inside."""
    with _metrics().waiting.track_inprogress():
        yield


def share_by_name(name: str) -> None:
    """Let this process write its figures under ``name``, which no other living process may have.

    Under its number, as by default, every process that ever lived would leave files behind.
    """
    _process["name"] = name


_process: dict[str, str] = {}
if MULTIPROCESS_FOLDER in os.environ:
    name_or_number = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: _process.get("name") or os.getpid()
    )
    values.ValueClass = name_or_number


def _metrics() -> Metrics:
    metrics: Metrics = current_app.extensions["metrics"]
    return metrics


def _begin() -> None:
    if asks_for_captions():
        g.is_inflight = True
        _metrics().inflight.inc()


def _observe_answer(response: Response) -> Response:
    metrics, route = _metrics(), request.url_rule.rule if request.url_rule else "none"
    metrics.requests.labels(route, response.status_code).inc()
    if asks_for_captions():
        metrics.seconds.labels(route).observe(seconds_since_arrival())
        for name, seconds in g.stages.items():
            metrics.stages.labels(name).observe(seconds)
        if response.status_code >= 400 and response.is_json:
            observe_rejected(response.get_json())
    return response


def _end(error: BaseException | None) -> None:
    if g.pop("is_inflight", False):
        _metrics().inflight.dec()
