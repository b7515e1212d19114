"""From a request for captions to its turn at the captioner: what every route that captions goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from flask import current_app
from werkzeug.datastructures import FileStorage

from model import Caption, DecodingOptions, Photo
from service.web.context import stage
from service.web.logs import log_photo
from service.web.metrics import observe_caption, waiting
from service.web.request_parser import check_body
from service.worker import Inference

Answer = TypeVar("Answer")
Render = Callable[[bytes, Photo, list[Caption]], Answer]


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
    """What ``render`` makes of a photo, its bytes and its captions, when it is their turn.

    Call it with a place in the queue.

    Raises:
        ImageError: the upload is no acceptable photo.
        OptionsError: ``render`` refuses what it is asked for.
    """
    inference, data = current_inference(), upload.read()
    with inference.turn(_in_queue()):
        photo, captions = inference.caption(data, options, stage)
        observe_caption(photo, captions)
        log_photo(data, photo, captions)
        with stage("draw"):
            return render(data, photo, captions)


@contextmanager
def _in_queue() -> Iterator[None]:
    with stage("queue"), waiting():
        yield
