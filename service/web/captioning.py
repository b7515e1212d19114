"""From a request for captions to its turn at the captioner: what every route that captions goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from flask import current_app
from werkzeug.datastructures import FileStorage

from model import Caption, DecodingOptions, Photograph
from service.web.context import stage
from service.web.logs import log_photograph
from service.web.metrics import observe_caption, waiting
from service.web.request_parser import check_body
from service.worker import Inference

Answer = TypeVar("Answer")
Render = Callable[[bytes, Photograph, list[Caption]], Answer]


def current_inference() -> Inference:
    """The captioner of this process."""
    inference: Inference = current_app.extensions["inference"]
    return inference


def admit() -> None:
    """Refuse what cannot be served, before its body is read.

    Raises:
        HTTPException: the body is too long, or no form.
        BusyError: the queue is full.
    """
    check_body()
    current_inference().refuse_if_full()


def captioned(upload: FileStorage, options: DecodingOptions, render: Render[Answer]) -> Answer:
    """What ``render`` makes of a photograph, its bytes and its captions, when it is their turn.

    Call it with a place in the queue.

    Raises:
        ImageError: the upload is no acceptable photograph.
        OptionsError: ``render`` refuses what it is asked for.
    """
    inference, data = current_inference(), upload.read()
    with inference.turn(_in_queue()):
        photograph, captions = inference.caption(data, options, stage)
        observe_caption(photograph, captions)
        log_photograph(data, photograph, captions)
        with stage("draw"):
            return render(data, photograph, captions)


@contextmanager
def _in_queue() -> Iterator[None]:
    with stage("queue"), waiting():
        yield
