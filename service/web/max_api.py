"""The routes of IBM's MAX Image Caption Generator, for existing clients: three captions, best first."""

import math
from typing import Any

from model import DecodingOptions
from service.web.context import captioned, current_worker
from service.web.openapi import CAPTION_ERRORS, ApiBlueprint, may_fail
from service.web.request_schemas import PhotoForm
from service.web.response_schemas import MetadataRecord, PredictionsRecord

OPTIONS = DecodingOptions(num_captions=3)

max_routes = ApiBlueprint("MAX", __name__, url_prefix="/model")


@max_routes.post("/predict")
@may_fail(max_routes, *CAPTION_ERRORS)
@max_routes.arguments(PhotoForm, location="files")
@max_routes.response(200, PredictionsRecord)
def predict(form: dict[str, Any]) -> dict[str, Any]:
    """Get three captions of a photo."""
    with current_worker().slot(), captioned(form["image"], OPTIONS) as result:
        predictions = [
            {"index": str(index), "caption": caption.text, "probability": math.exp(caption.log_prob)}
            for index, caption in enumerate(result.captions)
        ]
    return {"status": "ok", "predictions": predictions}


@max_routes.get("/metadata")
@max_routes.doc(security=[])
@max_routes.response(200, MetadataRecord)
def metadata() -> dict[str, str]:
    """Get a description of the model."""
    info = current_worker().captioner.info
    return {
        "id": info.name,
        "name": info.name,
        "description": f"Captions photos; trained on {info.trained_on}.",
        "type": "Image-To-Text",
        "license": info.licence,
        "source": "/v1/model",
    }
