"""Metrics for Prometheus: requests, stages, queue, rejections and captions.

If ``PROMETHEUS_MULTIPROC_DIR`` is set when this is imported, the processes write their metrics there and
GET /metrics returns the sum over all of them; otherwise those of this process.
"""

import os
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

from service.web.context import RequestContext, current_worker, is_caption_request

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_REQUEST_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_STAGE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)
_MEGAPIXELS = (0.1, 0.3, 1, 3, 8, 12, 24, 50)
_WORDS = (2, 4, 6, 8, 10, 12, 15, 20, 30)
# Why a request was rejected, by the type of its problem or else by its status.
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
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("caption_requests", "Requests answered", ("route", "code"), **own)
        self.seconds = Histogram(
            "caption_request_duration_seconds",
            "From the head of a request to its response, the upload included",
            ("route",),
            buckets=_REQUEST_SECONDS,
            **own,
        )
        self.stages = Histogram(
            "caption_stage_seconds",
            "Stage of a request for captions",
            ("stage",),
            buckets=_STAGE_SECONDS,
            **own,
        )
        live = own | {"multiprocess_mode": "livesum"}
        self.inflight = Gauge("caption_inflight", "Requests for captions in flight", **live)
        self.queue_depth = Gauge("caption_queue_depth", "Photos waiting for inference", **live)
        self.rejected = Counter("caption_rejected", "Photos rejected, by reason", ("reason",), **own)
        self.megapixels = Histogram(
            "caption_image_megapixels", "Size of captioned photos", buckets=_MEGAPIXELS, **own
        )
        self.words = Histogram("caption_words", "Words of the best caption", buckets=_WORDS, **own)
        self.model = Gauge(
            "caption_model_info",
            "Always 1; the label is the sha256 of the model",
            ("sha",),
            multiprocess_mode="livemax",
            **own,
        )


def register_metrics(app: Flask) -> None:
    """Count what ``app`` does, and serve GET /metrics."""
    app.extensions["metrics"] = Metrics()
    app.before_request(_begin)
    app.teardown_request(_end)
    app.add_url_rule("/metrics", view_func=exposition)


def exposition() -> Response:
    """The metrics in the text format of Prometheus."""
    metrics = _metrics()
    # Set at every scrape: what was set before a fork is not inherited.
    metrics.model.labels(current_worker().captioner.info.sha256).set(1)
    registry = metrics.registry
    if MULTIPROCESS_FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def observe_request(context: RequestContext, response: Response) -> None:
    """Count a request that is answered."""
    metrics, route = _metrics(), request.url_rule.rule if request.url_rule else "none"
    metrics.requests.labels(route, response.status_code).inc()
    if not is_caption_request():
        return
    metrics.seconds.labels(route).observe(context.elapsed)
    for stage, seconds in context.timings.items():
        metrics.stages.labels(stage).observe(seconds)
    for photo in context.photos:
        metrics.megapixels.observe(photo["width"] * photo["height"] / 1e6)
        metrics.words.observe(photo["words"])
    for problem in context.problems:
        if reason := _REASONS.get(problem["type"]) or _REASONS.get(problem["status"]):
            metrics.rejected.labels(reason).inc()


def share_by_name(name: str) -> None:
    """Let this process write its metrics under ``name``, which must be unique among living processes.

    The default is the process id, with which every process that ever ran would leave files behind.
    """
    _process["name"] = name


_process: dict[str, str] = {}
if MULTIPROCESS_FOLDER in os.environ:
    value_class = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: _process.get("name") or os.getpid()
    )
    values.ValueClass = value_class


def _metrics() -> Metrics:
    metrics: Metrics = current_app.extensions["metrics"]
    return metrics


def _begin() -> None:
    if is_caption_request():
        g.is_inflight = True
        _metrics().inflight.inc()


def _end(error: BaseException | None) -> None:
    if g.pop("is_inflight", False):
        _metrics().inflight.dec()
