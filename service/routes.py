"""The routes. A view reads the request, captions, and renders; how is decided elsewhere."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify, render_template
from werkzeug.exceptions import ServiceUnavailable

from model import OptionsError, contact_sheet, encode_png, walk_gif, word_overlay
from service.inference import Inference
from service.parsing import (
    DECODING_FIELDS,
    check_body,
    choice,
    decoding_options,
    read_fields,
    read_image,
    word_index,
)
from service.payload import OVERLAYS, caption_record, model_record

WARM_UP_SECONDS = 2  # after which it is worth asking again

captioning = Blueprint("captioning", __name__)
captioning.before_request(check_body)
information = Blueprint("information", __name__)


def _inference() -> Inference:
    inference: Inference = current_app.extensions["inference"]
    return inference


@captioning.post("/v1/captions")
def captions() -> Response:
    """The captions of a photograph as JSON."""
    given = read_fields((*DECODING_FIELDS, "overlays"))
    options = decoding_options(given)
    overlays = choice(given, "overlays", OVERLAYS, "words")
    data, inference = read_image(), _inference()
    with inference.slot:
        photograph, found = inference.caption(data, options)
        return jsonify(caption_record(data, photograph, found, overlays))


@captioning.post("/v1/overlays")
def overlays() -> Response:
    """Where the best caption looked, as a picture: all words, one word, or a walk through them."""
    given = read_fields((*DECODING_FIELDS, "word", "format"))
    options, index = decoding_options(given), word_index(given)
    kind = choice(given, "format", ("png", "gif"), "png")
    if kind == "gif" and index is not None:
        raise OptionsError("word and format=gif exclude each other; the GIF walks through all words.")
    data, inference = read_image(), _inference()
    with inference.slot:
        photograph, [best, *_] = inference.caption(data, options)
        if kind == "gif":
            return Response(walk_gif(photograph.image, best), mimetype="image/gif")
        picture = (
            contact_sheet(photograph.image, best)
            if index is None
            else word_overlay(photograph.image, best, index)
        )
        return Response(encode_png(picture), mimetype="image/png")


@information.get("/v1/model")
def model() -> Response:
    """The model card as data."""
    inference = _inference()
    return jsonify(
        model_record(inference.captioner, inference.limits, current_app.config["MAX_CONTENT_LENGTH"])
    )


@information.get("/healthz")
def healthz() -> Response:
    """Whether the process answers; it touches nothing that could be busy."""
    return jsonify(status="ok")


@information.get("/readyz")
def readyz() -> Response:
    """Whether this process has captioned. If it has not, asking makes it try."""
    inference = _inference()
    if not inference.is_ready:
        inference.start_warm_up()
        raise ServiceUnavailable("The captioner is warming up; ask again soon.", retry_after=WARM_UP_SECONDS)
    return jsonify(status="ready")


@information.get("/")
def page() -> str:
    """The page that does the same by hand."""
    return render_template("index.html", max_bytes=current_app.config["MAX_CONTENT_LENGTH"])
