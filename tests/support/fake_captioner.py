"""A captioner that needs no weights, images for it, and how tests talk to the service it answers in."""

import io
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from model import Caption, DecodingOptions, Grid, Word

PROBLEM = "application/problem+json"
ROWS = COLUMNS = 3
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "grey": (128, 128, 128)}


class FakeCaptioner:
    """Says the photo's main colour and its shape; every word attends to a cell of its own."""

    info = SimpleNamespace(
        name="fake", sha256="0" * 64, licence="CC0-1.0", scores={"bleu_4": 21.5}, trained_on="nothing"
    )
    config = SimpleNamespace(attention="additive")
    vocabulary = range(11)

    def caption(
        self, images: Sequence[Image.Image], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        count = (options or DecodingOptions()).num_captions
        return [[_caption(image, index) for index in range(count)] for image in images]

    def encode(self, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
        return images

    def decode(
        self, encoded: Sequence[Image.Image], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        return self.caption(encoded, options)


def _caption(image: Image.Image, index: int) -> Caption:
    assert image.mode == "RGB"
    shape = "wide" if image.width > image.height else "tall" if image.height > image.width else "square"
    texts = ("a", _nearest_colour(image), shape, "picture")[: 4 - index]
    return Caption(
        text=" ".join(texts),
        log_prob=-1.0 - index,
        words=tuple(
            Word(word=text, log_prob=-0.25, beta=0.5, attention=_one_hot_map(cell))
            for cell, text in enumerate(texts)
        ),
        grid=Grid(rows=ROWS, columns=COLUMNS, box=(0.0, 0.0, 1.0, 1.0)),
        is_finished=True,
    )


def _nearest_colour(image: Image.Image) -> str:
    pixel = image.resize((1, 1)).getpixel((0, 0))
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


def _one_hot_map(cell: int) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(0.92 if r * COLUMNS + c == cell else 0.01 for c in range(COLUMNS)) for r in range(ROWS)
    )


def image_file(
    colour: str = "red", size: tuple[int, int] = (48, 32), mode: str = "RGB", kind: str = "JPEG", **how: Any
) -> bytes:
    """An image of one colour as the bytes of a file."""
    stream = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).convert(mode).save(stream, kind, **how)
    return stream.getvalue()


def post(client: FlaskClient, data: bytes, route: str = "/v1/captions", **fields: str) -> TestResponse:
    return client.post(route, data={"image": (io.BytesIO(data), "a.jpg"), **fields})


def assert_problem(response: TestResponse, status: int, *mentions: str) -> None:
    assert (response.status_code, response.content_type) == (status, PROBLEM), response.text
    problem = json.loads(response.data)
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["X-Request-Id"]
    for mention in mentions:
        assert mention in problem["detail"]
