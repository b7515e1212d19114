"""/v1/captions, /v1/overlays and /v1/model, served by a fake captioner."""

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
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from support.fake_captioner import COLOURS, FakeCaptioner, assert_problem, image_file, post

from model import Caption, DecodingOptions, NonFiniteError
from model.drawing import overlay
from service.app import create_app
from service.config import ServiceConfig

STATIC = Path(__file__).parents[1] / "service" / "web" / "static"


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(ServiceConfig(max_bytes=500_000, queue=16), FakeCaptioner())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


# Captions


def test_caption_response_has_documented_fields(client: FlaskClient) -> None:
    data = image_file("blue")
    record = post(client, data).get_json()
    assert list(record) == ["image", "sha256", "width", "height", "labels", "captions"]
    assert record["image"] == {"width": 48, "height": 32, "format": "JPEG"}
    assert (record["width"], record["height"], record["sha256"]) == (48, 32, sha256(data).hexdigest())
    [caption] = record["captions"]
    assert set(caption) == {"caption", "log_prob", "confidence", "words", "grid"}
    assert (caption["caption"], caption["log_prob"]) == ("a blue wide picture", -1.0)
    assert caption["confidence"] is None
    assert record["labels"] is None
    assert caption["grid"] == {"rows": 3, "columns": 3, "box": [0.0, 0.0, 1.0, 1.0]}
    for word in caption["words"]:
        assert set(word) == {"word", "log_prob", "beta", "support", "attention", "overlay"}
        assert sum(map(sum, word["attention"])) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_accepted_formats_are_captioned(client: FlaskClient, kind: str) -> None:
    record = post(client, image_file("green", kind=kind)).get_json()
    assert record["image"]["format"] == kind
    assert record["captions"][0]["caption"] == "a green wide picture"


def test_rotated_photo_is_captioned_upright(client: FlaskClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    record = post(client, image_file(exif=exif)).get_json()
    assert record["image"] == {"width": 32, "height": 48, "format": "JPEG"}
    assert record["captions"][0]["caption"] == "a red tall picture"
    drawn = picture_at(record["captions"][0]["words"][0]["overlay"])
    assert drawn.size == (32, 48)
    assert not drawn.getexif()


def picture_at(url: str) -> Image.Image:
    assert url.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_overlays_none_omits_overlays(client: FlaskClient) -> None:
    captions = post(client, image_file(), num_captions="3", overlays="none").get_json()["captions"]
    assert [len(caption["words"]) for caption in captions] == [4, 3, 2]
    assert "overlay" not in captions[0]["words"][0]


@pytest.mark.parametrize("where", ["form", "query"])
@pytest.mark.parametrize("route", ["/v1/captions", "/v1/captions:batch", "/v1/overlays"])
def test_decoding_options_reach_the_captioner(route: str, where: str) -> None:
    options = DecodingOptions(
        beam_size=5,
        num_captions=2,
        max_length=12,
        length_penalty=0.25,
        phrase_weight=0,
        allow_repeats=True,
        draw_seed=4_294_967_295,
    )
    assert all(value != getattr(DecodingOptions(), name) for name, value in vars(options).items())
    received: list[DecodingOptions] = []

    class RecordingCaptioner(FakeCaptioner):
        def caption(self, images: Any, options: Any, *args: Any) -> list[list[Caption]]:
            received.append(options)
            return super().caption(images, options, *args)

    fields = {name: str(value).lower() for name, value in vars(options).items()}
    client = create_app(ServiceConfig(), RecordingCaptioner()).test_client()
    form, query = (fields, {}) if where == "form" else ({}, fields)
    data = {"image": (io.BytesIO(image_file()), "a.jpg")} | form
    assert client.post(route, data=data, query_string=query).status_code == 200
    assert received == [options]


def test_sheet_is_returned_with_every_caption(client: FlaskClient) -> None:
    captions = post(client, image_file(), num_captions="2", overlays="sheet").get_json()["captions"]
    for caption in captions:
        assert picture_at(caption["sheet"]).width > 48
        assert "overlay" not in caption["words"][0]


def test_field_limit_does_not_apply_to_files(client: FlaskClient) -> None:
    data = image_file(size=(380, 380), kind="BMP")
    assert len(data) > 400_000
    assert post(client, data, overlays="none").status_code == 200


def test_concurrent_requests_get_their_own_captions(app: Flask) -> None:
    names = [name for name in COLOURS for _ in range(8)]
    with ThreadPoolExecutor(16) as pool:
        records = pool.map(lambda name: post(app.test_client(), image_file(name)).get_json(), names)
        assert [record["captions"][0]["words"][1]["word"] for record in records] == names


# Images of where it looked


def drawn(client: FlaskClient, **fields: str) -> Image.Image:
    response = post(client, image_file(size=(480, 320)), "/v1/overlays", **fields)
    image = Image.open(io.BytesIO(response.data))
    assert response.content_type == f"image/{str(image.format).lower()}"
    return image


def test_overlays_returns_contact_sheet(client: FlaskClient) -> None:
    sheet = drawn(client)
    assert sheet.format == "PNG"
    assert sheet.width * sheet.height > 480 * 320


def test_overlays_draws_one_word(client: FlaskClient) -> None:
    first, second = drawn(client, word="0"), drawn(client, word="1")
    assert (first.format, first.size) == ("PNG", (480, 320))
    assert first.tobytes() != second.tobytes()


def test_overlays_returns_gif_of_words(client: FlaskClient) -> None:
    walk = drawn(client, format="gif")
    assert (walk.format, getattr(walk, "n_frames", 1)) == ("GIF", 5)


# What is refused


def file(name: str = "a.jpg") -> tuple[io.BytesIO, str]:
    return io.BytesIO(image_file()), name


@pytest.mark.parametrize(
    "fields",
    [{"word": "4"}, {"word": "-1"}, {"word": "x"}, {"format": "zip"}, {"word": "0", "format": "gif"}],
)
def test_invalid_overlay_option_is_refused(client: FlaskClient, fields: dict[str, str]) -> None:
    assert_problem(post(client, image_file(), "/v1/overlays", **fields), 400)


def test_duplicate_option_is_refused(client: FlaskClient) -> None:
    data = {"image": file(), "beam_size": "2"}
    response = client.post("/v1/captions", data=data, query_string={"beam_size": "3"})
    assert_problem(response, 400, "beam_size", "more than once")


def test_unknown_route_returns_problem(client: FlaskClient) -> None:
    assert_problem(client.get("/nowhere"), 404)


def test_internal_error_hides_details() -> None:
    class BrokenCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            raise RuntimeError("a secret")

    client = create_app(ServiceConfig(), BrokenCaptioner()).test_client()
    response = post(client, image_file())
    assert_problem(response, 500)
    assert "secret" not in response.text
    assert client.get("/healthz").status_code == 200


# What surrounds it


@pytest.mark.parametrize("path", ["/", "/v1/model", "/nowhere", "/static/page.js"])
def test_responses_have_security_headers(client: FlaskClient, path: str) -> None:
    with client.get(path) as response:
        headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


def test_api_responses_are_not_stored(client: FlaskClient) -> None:
    assert post(client, image_file()).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("sent", "is_kept"), [("a1-B2", True), ("x" * 65, False), ("", False)])
def test_valid_request_id_is_kept(client: FlaskClient, sent: str, is_kept: bool) -> None:
    answered = client.get("/healthz", headers={"X-Request-Id": sent}).headers["X-Request-Id"]
    assert answered
    assert (answered == sent) is is_kept


def test_model_info_is_served(client: FlaskClient) -> None:
    card = client.get("/v1/model").get_json()
    assert (card["name"], card["vocabulary_size"], card["attention"]) == ("fake", 11, "additive")
    assert (card["licence"], card["scores"]) == ("CC0-1.0", {"bleu_4": 21.5})
    assert card["limits"]["max_bytes"] == 500_000


def test_ready_after_first_caption() -> None:
    client = create_app(ServiceConfig(), FakeCaptioner()).test_client()
    first = client.get("/readyz")
    assert_problem(first, 503)
    assert int(first.headers["Retry-After"]) > 0
    assert any(client.get("/readyz").status_code == 200 for _ in waiting())


class NonFiniteCaptioner(FakeCaptioner):
    """Returns nothing finite for red photos, or for any."""

    is_broken = False

    def caption(self, images: Any, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        [[caption]] = captions = super().caption(images, *args, **kwargs)
        if self.is_broken or "red" in caption.text:
            raise NonFiniteError("The network's output is not finite.")
        return captions


def test_non_finite_output_returns_500_and_recovers() -> None:
    captioner = NonFiniteCaptioner()
    client = create_app(ServiceConfig(), captioner).test_client()
    assert any(client.get("/readyz").status_code == 200 for _ in waiting())
    captioner.is_broken = True
    response = post(client, image_file("blue"))
    assert_problem(response, 500, "not finite")
    assert response.get_json()["type"] == "/problems/non-finite-output"
    assert client.get("/readyz").status_code == 503
    captioner.is_broken = False
    assert any(client.get("/readyz").status_code == 200 for _ in waiting())
    assert post(client, image_file("blue")).status_code == 200


def test_non_finite_output_does_not_lose_the_batch() -> None:
    client = create_app(ServiceConfig(), NonFiniteCaptioner()).test_client()
    files = [(io.BytesIO(image_file(colour)), "a.jpg") for colour in ("blue", "red", "green")]
    results = client.post("/v1/captions:batch", data={"image": files}).get_json()["results"]
    assert [result.get("status", 200) for result in results] == [200, 500, 200]


def waiting(seconds: float = 60) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)


def test_page_loads_no_external_resources(client: FlaskClient) -> None:
    parts = [path.name for path in STATIC.iterdir() if path.suffix in (".js", ".css")]
    assert len(parts) > 10
    for path in ("/", *(f"/static/{name}" for name in parts)):
        with client.get(path) as response:
            assert response.status_code == 200
            assert "//" not in response.text.replace("// ", "")


def test_page_and_overlays_share_heat_constants(client: FlaskClient) -> None:
    with client.get("/static/heatmap.js") as response:
        script = response.text
    shared = ("OPACITY", "FULL_HEAT", "BLEND_SIGMA", "MUTED_COLOUR", "MUTED_LIGHT", "HEAT_COLOURS")
    for name in (*shared, "OUTLINE", "OUTLINE_COLOURS"):
        value = getattr(overlay, name)
        assert f"const {name} = {json.dumps(value)};" in script


def test_page_privacy_note_is_true_on_any_host(client: FlaskClient) -> None:
    text = client.get("/", headers={"Host": "photos.example"}).text
    assert "sent only to this server" in text
    assert text == client.get("/").text


# Settings


def test_missing_checkpoint_exits_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        create_app(ServiceConfig(checkpoint="/nowhere/at/all"))
    assert ending.value.code not in (None, 0)
    [sentence] = capsys.readouterr().err.splitlines()
    assert "/nowhere/at/all" in sentence


def test_invalid_setting_exits_with_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTION_THREADS", "many")
    with pytest.raises(SystemExit):
        create_app()
    [sentence] = capsys.readouterr().err.splitlines()
    assert "CAPTION_THREADS" in sentence
