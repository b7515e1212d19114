"""The HTTP interface, served by a captioner that needs no weights."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fake_captioner import COLOURS, FakeCaptioner, assert_problem, picture, post
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from model import Caption
from model.drawing import overlay
from service.app import create_app
from service.config import ServiceConfig
from service.errors import ConfigError

STATIC = Path(__file__).parents[1] / "service" / "web" / "static"


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(ServiceConfig(max_bytes=500_000, queue=16), FakeCaptioner())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


# Captions


def test_a_captioned_photo_has_the_documented_record(client: FlaskClient) -> None:
    data = picture("blue")
    record = post(client, data).get_json()
    assert list(record) == ["image", "sha256", "width", "height", "captions"]
    assert record["image"] == {"width": 48, "height": 32, "format": "JPEG"}
    assert (record["width"], record["height"], record["sha256"]) == (48, 32, sha256(data).hexdigest())
    [caption] = record["captions"]
    assert (caption["caption"], caption["log_prob"]) == ("a blue wide picture", -1.0)
    assert caption["grid"] == {"rows": 3, "columns": 3, "box": [0.0, 0.0, 1.0, 1.0]}
    for word in caption["words"]:
        assert set(word) == {"word", "log_prob", "beta", "attention", "overlay"}
        assert sum(map(sum, word["attention"])) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_accepted_format_is_captioned(client: FlaskClient, kind: str) -> None:
    record = post(client, picture("green", kind=kind)).get_json()
    assert record["image"]["format"] == kind
    assert record["captions"][0]["caption"] == "a green wide picture"


def test_a_photo_turned_by_exif_is_captioned_and_drawn_upright(client: FlaskClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    record = post(client, picture(exif=exif)).get_json()
    assert record["image"] == {"width": 32, "height": 48, "format": "JPEG"}
    assert record["captions"][0]["caption"] == "a red tall picture"
    drawn = picture_at(record["captions"][0]["words"][0]["overlay"])
    assert drawn.size == (32, 48)
    assert not drawn.getexif()


def picture_at(url: str) -> Image.Image:
    assert url.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize("where", ["form", "query"])
def test_options_are_form_or_query_fields(client: FlaskClient, where: str) -> None:
    fields = {"beam_size": "5", "num_captions": "3", "max_length": "12", "overlays": "none"}
    data = {"image": (io.BytesIO(picture()), "a.jpg")}
    query = fields if where == "query" else {}
    response = client.post(
        "/v1/captions", data=data | (fields if where == "form" else {}), query_string=query
    )
    captions = response.get_json()["captions"]
    assert [len(caption["words"]) for caption in captions] == [4, 3, 2]
    assert "overlay" not in captions[0]["words"][0]


def test_a_sheet_can_be_had_with_every_caption(client: FlaskClient) -> None:
    captions = post(client, picture(), num_captions="2", overlays="sheet").get_json()["captions"]
    for caption in captions:
        assert picture_at(caption["sheet"]).width > 48
        assert "overlay" not in caption["words"][0]


def test_a_photo_of_some_size_passes_the_limits_on_fields(client: FlaskClient) -> None:
    data = picture(size=(380, 380), kind="BMP")
    assert len(data) > 400_000
    assert post(client, data, overlays="none").status_code == 200


def test_every_thread_gets_the_answer_for_its_own_photo(app: Flask) -> None:
    names = [name for name in COLOURS for _ in range(8)]
    with ThreadPoolExecutor(16) as pool:
        records = pool.map(lambda name: post(app.test_client(), picture(name)).get_json(), names)
        assert [record["captions"][0]["words"][1]["word"] for record in records] == names


# Pictures of where it looked


def drawn(client: FlaskClient, **fields: str) -> Image.Image:
    response = post(client, picture(size=(480, 320)), "/v1/overlays", **fields)
    image = Image.open(io.BytesIO(response.data))
    assert response.content_type == f"image/{str(image.format).lower()}"
    return image


def test_overlays_answers_with_a_contact_sheet(client: FlaskClient) -> None:
    sheet = drawn(client)
    assert sheet.format == "PNG"
    assert sheet.width * sheet.height > 480 * 320


def test_overlays_draws_one_word(client: FlaskClient) -> None:
    first, second = drawn(client, word="0"), drawn(client, word="1")
    assert (first.format, first.size) == ("PNG", (480, 320))
    assert first.tobytes() != second.tobytes()


def test_overlays_walks_through_the_words(client: FlaskClient) -> None:
    walk = drawn(client, format="gif")
    assert (walk.format, getattr(walk, "n_frames", 1)) == ("GIF", 5)


# What is refused


def file(name: str = "a.jpg") -> tuple[io.BytesIO, str]:
    return io.BytesIO(picture()), name


@pytest.mark.parametrize(
    ("request_body", "status"),
    [
        ({"data": {}, "content_type": "multipart/form-data"}, 400),
        ({"data": {"image": "data:image/png;base64,AAAA"}}, 400),
        ({"data": {"image": [file("a.jpg"), file("b.jpg")]}}, 400),
        ({"data": {"photo": file()}}, 400),
        ({"data": {"image": file(), "mask": file()}}, 400),
        ({"data": b"x", "content_type": "multipart/form-data"}, 400),
        ({"data": {"image": file()}, "query_string": {"url": "http://169.254.169.254/"}}, 400),
        ({"data": b"{}", "content_type": "application/json"}, 415),
        ({"data": picture(), "content_type": "image/jpeg"}, 415),
        ({"data": {"image": (io.BytesIO(bytes(500_001)), "a.jpg")}}, 413),
        ({"data": {"image": file(), "beam_size": "1" * 200_000}}, 413),
        ({"data": {"image": file()} | {f"field{i}": "1" for i in range(40)}}, 413),
        ({"input_stream": io.BytesIO(b"x"), "headers": {"Transfer-Encoding": "chunked"}}, 411),
    ],
    ids=[
        "none",
        "text",
        "two",
        "misnamed",
        "stray",
        "boundary",
        "url",
        "json",
        "raw",
        "bytes",
        "field",
        "parts",
        "chunked",
    ],
)
def test_a_malformed_request_is_refused(
    client: FlaskClient, request_body: dict[str, Any], status: int
) -> None:
    assert_problem(client.post("/v1/captions", **request_body), status)


@pytest.mark.parametrize(
    ("name", "value", "mention"),
    [
        ("beam_size", "0", "from 1 to 10"),
        ("beam_size", "11", "from 1 to 10"),
        ("beam_size", "1e9", "from 1 to 10"),
        ("beam_size", "", "from 1 to 10"),
        ("beam_size", "٣", "from 1 to 10"),
        ("num_captions", "4", "from 1 to 3"),
        ("max_length", "201", "from 1 to 200"),
        ("max_length", "NaN", "from 1 to 200"),
        ("overlays", "all", "words, sheet, none"),
        ("colour", "red", "known are beam_size"),
    ],
)
def test_a_wrong_option_is_refused_by_name_and_range(
    client: FlaskClient, name: str, value: str, mention: str
) -> None:
    assert_problem(post(client, picture(), **{name: value}), 400, name, mention)


@pytest.mark.parametrize(
    "fields",
    [{"word": "4"}, {"word": "-1"}, {"word": "x"}, {"format": "zip"}, {"word": "0", "format": "gif"}],
)
def test_a_wrong_option_of_overlays_is_refused(client: FlaskClient, fields: dict[str, str]) -> None:
    assert_problem(post(client, picture(), "/v1/overlays", **fields), 400)


def test_an_option_given_twice_is_refused(client: FlaskClient) -> None:
    data = {"image": file(), "beam_size": "2"}
    response = client.post("/v1/captions", data=data, query_string={"beam_size": "3"})
    assert_problem(response, 400, "beam_size", "twice")


def test_unknown_routes_and_methods_are_problems_too(client: FlaskClient) -> None:
    assert_problem(client.get("/nowhere"), 404)
    response = client.get("/v1/captions")
    assert_problem(response, 405)
    assert "POST" in response.headers["Allow"]


def test_a_fault_of_ours_is_a_500_that_tells_nothing() -> None:
    class BrokenCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            raise RuntimeError("a secret")

    client = create_app(ServiceConfig(), BrokenCaptioner()).test_client()
    response = post(client, picture())
    assert_problem(response, 500)
    assert "secret" not in response.text
    assert client.get("/healthz").status_code == 200


# What surrounds it


@pytest.mark.parametrize("path", ["/", "/v1/model", "/healthz", "/nowhere", "/static/page.js"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    with client.get(path) as response:
        headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


def test_answers_of_the_interface_are_not_stored(client: FlaskClient) -> None:
    assert post(client, picture()).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("sent", "is_kept"), [("a1-B2", True), ("x" * 65, False), ("a b", False), ("", False)]
)
def test_a_request_has_an_id(client: FlaskClient, sent: str, is_kept: bool) -> None:
    answered = client.get("/healthz", headers={"X-Request-Id": sent}).headers["X-Request-Id"]
    assert answered
    assert (answered == sent) is is_kept


def test_the_model_card_is_served_as_data(client: FlaskClient) -> None:
    card = client.get("/v1/model").get_json()
    assert (card["name"], card["vocabulary_size"], card["attention"]) == ("fake", 11, "additive")
    assert (card["licence"], card["scores"]) == ("CC0-1.0", {"bleu_4": 21.5})
    assert card["limits"]["max_bytes"] == 500_000


def test_it_is_ready_only_after_a_caption_succeeded() -> None:
    client = create_app(ServiceConfig(), FakeCaptioner()).test_client()
    first = client.get("/readyz")
    assert_problem(first, 503)
    assert int(first.headers["Retry-After"]) > 0
    assert any(client.get("/readyz").status_code == 200 for _ in waiting())


def test_it_never_gets_ready_if_captioning_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = FakeCaptioner()
    monkeypatch.setattr(captioner, "caption", lambda *_: 1 / 0, raising=False)
    client = create_app(ServiceConfig(), captioner).test_client()
    assert all(client.get("/readyz").status_code == 503 for _ in range(5))


def waiting(seconds: float = 60) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)


def test_the_page_needs_nothing_from_elsewhere(client: FlaskClient) -> None:
    parts = [path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css")]
    assert len(parts) > 10
    for path in ("/", *(f"/static/{name}" for name in parts)):
        with client.get(path) as response:
            assert response.status_code == 200
            assert "//" not in response.text.replace("// ", "")


def test_the_page_draws_heat_as_the_overlays_do(client: FlaskClient) -> None:
    with client.get("/static/heat.js") as response:
        script = response.text
    shared = ("OPACITY", "FULL_HEAT", "BLEND_SIGMA", "MUTED_COLOUR", "MUTED_LIGHT", "HEAT_COLOURS")
    for name in (*shared, "OUTLINE", "OUTLINE_COLOURS"):
        value = getattr(overlay, name)
        assert f"const {name} = {json.dumps(value)};" in script


def test_the_page_promises_no_more_than_is_true_wherever_it_is_opened(client: FlaskClient) -> None:
    text = client.get("/", headers={"Host": "photos.example"}).text
    assert "nowhere else; it is not stored" in text
    assert text == client.get("/").text


# Settings


def test_settings_come_from_the_environment() -> None:
    config = ServiceConfig.from_env(
        {"CAPTION_CHECKPOINT": "runs/mine", "CAPTION_MAX_PIXELS": "9000", "HOME": "/"}
    )
    assert config == ServiceConfig(checkpoint="runs/mine", max_pixels=9000)


@pytest.mark.parametrize(
    ("name", "value"), [("CAPTION_WORKERS", "-1"), ("CAPTION_MAX_BYTES", "20MB"), ("CAPTION_DEVICE", "")]
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServiceConfig.from_env({name: value})


def test_a_missing_checkpoint_ends_the_start_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        create_app(ServiceConfig(checkpoint="/nowhere/at/all"))
    assert ending.value.code not in (None, 0)
    [sentence] = capsys.readouterr().err.splitlines()
    assert "/nowhere/at/all" in sentence


def test_a_wrong_setting_ends_the_start_with_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTION_THREADS", "many")
    with pytest.raises(SystemExit):
        create_app()
    [sentence] = capsys.readouterr().err.splitlines()
    assert "CAPTION_THREADS" in sentence
