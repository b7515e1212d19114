"""What is answered, as the specification shows it. Views make these records; nothing is checked here."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields

PROBLEM_TYPE = "application/problem+json"  # RFC 9457


def _number(meaning: str, **more: Any) -> fields.Float:
    return fields.Float(metadata={"description": meaning}, **more)


def _integer(meaning: str) -> fields.Integer:
    return fields.Integer(required=True, metadata={"description": meaning})


def _text(meaning: str, **more: Any) -> fields.String:
    return fields.String(metadata={"description": meaning}, **more)


def _map(meaning: str, **more: Any) -> fields.Field[Any]:
    return fields.List(fields.List(fields.Float()), metadata={"description": meaning}, **more)


class Problem(Schema):
    """What went wrong, as RFC 9457 has it."""

    type = _text("which problem: a path, or about:blank where the status says it all", required=True)
    title = _text("the problem in a few words", required=True)
    status = _integer("the status of the answer")
    detail = _text("what is wrong and what would be right, in a sentence", required=True)
    request_id = _text("the id of the request, as in X-Request-Id", required=True)


class WordRecord(Schema):
    """A word, and where the captioner looked for it."""

    word = _text("as it is written", required=True)
    log_prob = _number("natural logarithm of its probability", required=True)
    beta = _number("how much it leaned on the photo, 0 to 1", required=True, allow_none=True)
    attention = _map("rows x columns of weights that sum to 1", required=True, allow_none=True)
    overlay = _text("data: URL of the photo with the word's heat map", allow_none=True)
    sentinel = _number("share of the attention kept off the photo")
    chosen = fields.List(fields.Integer(), metadata={"description": "row and column of the one cell used"})
    heads = fields.List(
        fields.List(fields.List(fields.Float())), metadata={"description": "the map of every head"}
    )


class GridRecord(Schema):
    """Where the maps lie on the photo."""

    rows = _integer("of cells")
    columns = _integer("of cells")
    box = fields.List(
        fields.Float(),
        required=True,
        metadata={"description": "left, top, right, bottom, as fractions of the upright photo"},
    )


class CaptionRecord(Schema):
    """A caption, its words and their grid."""

    caption = _text("the sentence", required=True)
    log_prob = _number("natural logarithm of its probability, its end included", required=True)
    words = fields.List(fields.Nested(WordRecord), required=True)
    grid = fields.Nested(GridRecord, required=True)
    sheet = _text("data: URL of the contact sheet")


class ImageRecord(Schema):
    """What was sent."""

    width = _integer("pixels, upright")
    height = _integer("pixels, upright")
    format = _text("JPEG, PNG, WEBP, GIF or BMP", required=True)


class PhotographRecord(Schema):
    """A captioned photo."""

    image = fields.Nested(ImageRecord, required=True)
    sha256 = _text("of the bytes that were sent", required=True)
    width = _integer("pixels, upright")
    height = _integer("pixels, upright")
    captions = fields.List(
        fields.Nested(CaptionRecord), required=True, metadata={"description": "best first"}
    )


class BatchRecord(Schema):
    """What became of every photo."""

    results = fields.List(
        fields.Raw(
            metadata={
                "anyOf": [
                    {"$ref": "#/components/schemas/PhotographRecord"},
                    {"$ref": "#/components/schemas/Problem"},
                ]
            }
        ),
        required=True,
        metadata={"description": "in the order of the photos: a record, or the problem with it"},
    )


class ModelRecord(Schema):
    """The model card as data."""

    name = fields.String(required=True)
    sha256 = _text("of the weights", required=True)
    vocabulary_size = _integer("tokens")
    attention = _text("the kind of attention", required=True)
    scores = fields.Dict(required=True)
    licence = _text("of the weights", required=True)
    trained_on = fields.String(required=True)
    limits = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class StatusRecord(Schema):
    """That all is well."""

    status = fields.String(required=True)


class PredictionRecord(Schema):
    """A caption, in the form of the MAX Image Caption Generator."""

    index = _text("its place, from 0, as text", required=True)
    caption = fields.String(required=True)
    probability = _number("of the caption", required=True)


class PredictionsRecord(Schema):
    """Captions, in the form of the MAX Image Caption Generator."""

    status = _text("ok", required=True)
    predictions = fields.List(fields.Nested(PredictionRecord), required=True)


class MetadataRecord(Schema):
    """The model, in the form of the MAX Image Caption Generator."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    description = fields.String(required=True)
    type = fields.String(required=True)
    license = fields.String(required=True)
    source = fields.String(required=True)
