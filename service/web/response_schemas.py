"""The responses in the OpenAPI document. Views build these records; nothing is validated here."""

from typing import Any

from marshmallow import Schema, fields

PROBLEM_TYPE = "application/problem+json"  # RFC 9457


def _number(meaning: str, **more: Any) -> fields.Float:
    return fields.Float(metadata={"description": meaning}, **more)


def _integer(meaning: str) -> fields.Integer:
    return fields.Integer(required=True, metadata={"description": meaning})


def _text(meaning: str, **more: Any) -> fields.String:
    return fields.String(metadata={"description": meaning}, **more)


def _list(of: fields.Field[Any], meaning: str, **more: Any) -> fields.List[Any]:
    return fields.List(of, metadata={"description": meaning}, **more)


_ROW = fields.List(fields.Float())  # of an attention map
_RESULTS = ("PhotographRecord", "Problem")


class Problem(Schema):
    """An error (RFC 9457)."""

    type = _text("a path that identifies the problem; about:blank if the status does", required=True)
    title = _text("short summary", required=True)
    status = _integer("HTTP status")
    detail = _text("what is wrong and what would be right", required=True)
    request_id = _text("as in X-Request-Id", required=True)


class WordRecord(Schema):
    """A word and its attention map."""

    word = _text("one output token of the model", required=True)
    log_prob = _number("natural logarithm of its probability", required=True)
    beta = _number("gate: how much the word depends on the photo, 0 to 1", required=True, allow_none=True)
    support = _number(
        "evidence of the word in the photo: change of its log-odds in nats, below 0 against it",
        required=True,
        allow_none=True,
    )
    attention = _list(_ROW, "attention weights, rows x columns, summing to 1", required=True, allow_none=True)
    overlay = _text("the photo with the heat map of the word, a data: URL", allow_none=True)
    sentinel = _number("share of attention given to the visual sentinel, 0 to 1")
    chosen = _list(fields.Integer(), "row and column of the one cell used (hard attention)")
    heads = _list(fields.List(_ROW), "the map of each head")


class GridRecord(Schema):
    """The position of the attention maps on the photo."""

    rows = _integer("number of rows")
    columns = _integer("number of columns")
    box = _list(
        fields.Float(),
        "area covered: left, top, right, bottom, as fractions of the upright photo",
        required=True,
    )


class CaptionRecord(Schema):
    """A caption and its words."""

    caption = _text("its text", required=True)
    log_prob = _number("natural logarithm of its probability, end token included", required=True)
    confidence = _number("calibrated probability that it is right, 0 to 1", required=True, allow_none=True)
    words = fields.List(fields.Nested(WordRecord), required=True)
    grid = fields.Nested(GridRecord, required=True)
    sheet = _text("contact sheet, a data: URL")


class ImageRecord(Schema):
    """The uploaded image."""

    width = _integer("pixels, upright")
    height = _integer("pixels, upright")
    format = _text("JPEG, PNG, WEBP, GIF or BMP", required=True)


class LabelRecord(Schema):
    """A thing that the photo shows."""

    label = _text("its name", required=True)
    probability = _number("0 to 1", required=True)


class PhotographRecord(Schema):
    """A captioned photo."""

    image = fields.Nested(ImageRecord, required=True)
    sha256 = _text("of the uploaded file", required=True)
    width = _integer("pixels, upright")
    height = _integer("pixels, upright")
    labels = _list(
        fields.Nested(LabelRecord),
        "things that it shows, the most probable first, five at most",
        required=True,
        allow_none=True,
    )
    captions = _list(fields.Nested(CaptionRecord), "best first", required=True)


class BatchRecord(Schema):
    """The result for each photo."""

    results = _list(
        fields.Raw(metadata={"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in _RESULTS]}),
        "in the order of the photos: its record, or its error",
        required=True,
    )


class ModelRecord(Schema):
    """The model card as data."""

    name = fields.String(required=True)
    sha256 = _text("of the weights", required=True)
    vocabulary_size = _integer("number of tokens")
    attention = _text("kind of attention", required=True)
    scores = fields.Dict(required=True)
    licence = _text("of the weights", required=True)
    trained_on = fields.String(required=True)
    limits = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class StatusRecord(Schema):
    """The state of the service."""

    status = fields.String(required=True)


class PredictionRecord(Schema):
    """A caption, in the form of the MAX Image Caption Generator."""

    index = _text("rank from 0, as text", required=True)
    caption = fields.String(required=True)
    probability = _number("probability of the caption", required=True)


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
