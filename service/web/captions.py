"""The routes under /v1: captions, overlays and the model card."""

from typing import Any

from flask import Response, current_app, jsonify
from werkzeug.datastructures import FileStorage

from model import CaptioningError, DecodingOptions, OptionsError
from service.web.context import captioned, current_worker
from service.web.openapi import ApiBlueprint, takes_images
from service.web.problems import problem_of
from service.web.request_schemas import BatchFields, CaptionFields, OverlayFields
from service.web.response_schemas import BatchRecord, ModelRecord, PhotographRecord
from service.web.responses import caption_response, model_response, overlay_image

captioning = ApiBlueprint("captions", __name__, url_prefix="/v1")
model_card = ApiBlueprint("model", __name__, url_prefix="/v1")

_IMAGE = {"type": "string", "format": "binary"}


@captioning.post("/captions")
@takes_images(captioning, CaptionFields)
@captioning.response(200, PhotographRecord)
def captions(given: dict[str, Any]) -> Response:
    """Caption a photo.

    Each word comes with its attention map. Options may be query parameters or form fields.
    """
    options, overlays = DecodingOptions.from_values(given), given.get("overlays", "words")
    with current_worker().slot(), captioned(given["image"], options) as result:
        return jsonify(caption_response(result, overlays))


@captioning.post("/captions:batch")
@takes_images(captioning, BatchFields, several=True)
@captioning.response(200, BatchRecord)
def batch(given: dict[str, Any]) -> Response:
    """Caption up to 16 photos.

    Each has its own result, in order: its record, or its error. Photos are captioned one at a time, and
    other requests may be served in between.
    """
    options = DecodingOptions.from_values(given)
    with current_worker().slot():
        return jsonify(results=[_result(upload, options) for upload in given["image"]])


def _result(upload: FileStorage, options: DecodingOptions) -> dict[str, Any]:
    try:
        with captioned(upload, options) as result:
            return caption_response(result, "none")
    except CaptioningError as error:  # the other photos are captioned all the same
        return problem_of(error)


@captioning.post("/overlays")
@takes_images(captioning, OverlayFields)
@captioning.response(200, _IMAGE, content_type="image/png")
@captioning.alt_response(200, schema=_IMAGE, content_type="image/gif", success=True)
def overlays(given: dict[str, Any]) -> Response:
    """Draw the attention maps of the best caption.

    A contact sheet of all words, the overlay of one word, or an animation word by word.
    """
    options = DecodingOptions.from_values(given)
    kind, word = given.get("format", "png"), given.get("word")
    if kind == "gif" and word is not None:
        raise OptionsError("word and format=gif exclude each other; the GIF shows every word.")
    with current_worker().slot(), captioned(given["image"], options) as result:
        return Response(overlay_image(result, kind, word), mimetype=f"image/{kind}")


@model_card.get("/model")
@model_card.doc(security=[])
@model_card.response(200, ModelRecord)
def model() -> Response:
    """Get the model card as data."""
    worker = current_worker()
    max_bytes = current_app.config["MAX_CONTENT_LENGTH"]
    return jsonify(model_response(worker.captioner, worker.limits, max_bytes))
