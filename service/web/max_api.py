"""The routes of IBM's MAX Image Caption Generator, for clients written for it.

What it answers, not how: it predicts three captions, best first, and counts them in text.
"""

from __future__ import annotations

import math
from typing import Any

from model import Caption, DecodingOptions, Photo
from service.web.captioning import admit, captioned, current_inference
from service.web.openapi import REFUSALS, ApiBlueprint, refuses
from service.web.request_schemas import PhotoForm
from service.web.response_schemas import MetadataRecord, PredictionsRecord

CAPTIONS = 3

max_routes = ApiBlueprint("MAX", __name__, url_prefix="/model")
max_predictions = ApiBlueprint("MAX predictions", __name__, url_prefix="/model")
max_predictions.before_request(admit)


@max_predictions.post("/predict")
@refuses(max_predictions, *REFUSALS)
@max_predictions.arguments(PhotoForm, location="files")
@max_predictions.response(200, PredictionsRecord)
def predict(form: dict[str, Any]) -> dict[str, Any]:
    """Three captions of a photo."""
    with current_inference().place():
        return captioned(form["image"], DecodingOptions(num_captions=CAPTIONS), _predictions)


def _predictions(data: bytes, photo: Photo, captions: list[Caption]) -> dict[str, Any]:
    predictions = [
        {"index": str(place), "caption": caption.text, "probability": math.exp(caption.log_prob)}
        for place, caption in enumerate(captions)
    ]
    return {"status": "ok", "predictions": predictions}


@max_routes.get("/metadata")
@max_routes.doc(security=[])
@max_routes.response(200, MetadataRecord)
def metadata() -> dict[str, str]:
    """What the model is."""
    captioner = current_inference().captioner
    return {
        "id": captioner.info.name,
        "name": captioner.info.name,
        "description": f"Captions photos; trained on {captioner.info.trained_on}.",
        "type": "Image-To-Text",
        "license": captioner.info.licence,
        "source": "/v1/model",
    }
