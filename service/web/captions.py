"""The routes of captions. A view reads the request, captions, and renders; how is decided elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, current_app, jsonify
from werkzeug.datastructures import FileStorage

from model import Caption, CaptioningError, DecodingOptions, OptionsError, Photo
from service.web.captioning import admit, captioned, current_inference
from service.web.metrics import observe_rejected
from service.web.openapi import REFUSALS, ApiBlueprint, refuses
from service.web.problems import problem_of
from service.web.request_parser import decoding_options, merged
from service.web.request_schemas import (
    BatchFields,
    BatchForm,
    CaptionFields,
    CaptionForm,
    OverlayFields,
    OverlayForm,
)
from service.web.response_schemas import BatchRecord, ModelRecord, PhotographRecord
from service.web.responses import caption_record, draw, model_record

captioning = ApiBlueprint("captions", __name__, url_prefix="/v1")
captioning.before_request(admit)
information = ApiBlueprint("model", __name__, url_prefix="/v1")

_PICTURE = {"type": "string", "format": "binary"}


@captioning.post("/captions")
@refuses(captioning, *REFUSALS)
@captioning.arguments(CaptionFields, location="query")
@captioning.arguments(CaptionForm, location="files")
@captioning.response(200, PhotographRecord)
def captions(query: dict[str, Any], form: dict[str, Any]) -> Response:
    """The captions of a photo.

    With every word comes where it looked. Options may be fields of the query or of the form.
    """
    given = merged(query, form)
    options, render = (
        decoding_options(given),
        partial(caption_record, overlays=given.get("overlays", "words")),
    )
    with current_inference().place():
        return jsonify(captioned(form["image"], options, render))


@captioning.post("/captions:batch")
@refuses(captioning, *REFUSALS)
@captioning.arguments(BatchFields, location="query")
@captioning.arguments(BatchForm, location="files")
@captioning.response(200, BatchRecord)
def captions_of_several(query: dict[str, Any], form: dict[str, Any]) -> Response:
    """The captions of up to 16 photos.

    Each has a result of its own, in order: the record, or the problem with this photo. They are
    captioned one after the other, and other requests have their turns in between.
    """
    options = decoding_options(merged(query, form))
    with current_inference().place():
        return jsonify(results=[_result(upload, options) for upload in form["image"]])


def _result(upload: FileStorage, options: DecodingOptions) -> dict[str, Any]:
    try:
        return captioned(upload, options, partial(caption_record, overlays="none"))
    except CaptioningError as error:  # one bad photo does not lose the others
        problem = problem_of(error)
        observe_rejected(problem)
        return problem


@captioning.post("/overlays")
@refuses(captioning, *REFUSALS)
@captioning.arguments(OverlayFields, location="query")
@captioning.arguments(OverlayForm, location="files")
@captioning.response(200, _PICTURE, content_type="image/png")
@captioning.alt_response(200, schema=_PICTURE, content_type="image/gif", success=True)
def overlays(query: dict[str, Any], form: dict[str, Any]) -> Response:
    """Where the best caption looked, as a picture.

    A contact sheet of all words, one word, or a walk through the words.
    """
    given = merged(query, form)
    options, kind, word = decoding_options(given), given.get("format", "png"), given.get("word")
    if kind == "gif" and word is not None:
        raise OptionsError("word and format=gif exclude each other; the GIF walks through all words.")

    def render(data: bytes, photo: Photo, captions: list[Caption]) -> bytes:
        return draw(photo, captions[0], kind, word)

    with current_inference().place():
        return Response(captioned(form["image"], options, render), mimetype=f"image/{kind}")


@information.get("/model")
@information.doc(security=[])
@information.response(200, ModelRecord)
def model() -> Response:
    """The model card as data."""
    inference = current_inference()
    max_bytes = current_app.config["MAX_CONTENT_LENGTH"]
    return jsonify(model_record(inference.captioner, inference.limits, max_bytes))
