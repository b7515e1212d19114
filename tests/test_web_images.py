"""Uploaded files: bad ones return the right status, odd ones are captioned like the plain image."""

import base64
import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_photo
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from support.bad_inputs import (
    GREY,
    REFUSED,
    RGBA,
    File,
    blank_png,
    encoded,
    form,
    half,
    patched,
    photo,
    post,
    scrambled,
    upload,
)
from support.fake_captioner import FakeCaptioner, assert_problem
from support.odd_images import ODD, ORIENTATION, PLACE, SCRIPT, Odd, plain, turned, with_exif

from model import open_image
from service.app import create_app
from service.config import ServiceConfig

# Pillow warns of damaged metadata, which is not our affair: the pixels are all that is wanted.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

TESTS = Path(__file__).parent
ROUTES = ("/v1/captions", "/v1/overlays", "/model/predict")


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app(ServiceConfig(), FakeCaptioner())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def caption_of(client: FlaskClient, data: bytes) -> str:
    response = post(client, data, overlays="none")
    assert response.status_code == 200, response.text
    return str(response.get_json()["captions"][0]["caption"])


# Refused


@pytest.mark.parametrize("file", REFUSED, ids=str)
def test_bad_file_returns_its_status(client: FlaskClient, file: File) -> None:
    [status] = file.statuses
    assert_problem(post(client, file.make()), status)


@pytest.mark.parametrize("route", ["/v1/overlays", "/model/predict"])
def test_bad_file_returns_its_status_from_other_routes(client: FlaskClient, route: str) -> None:
    for data, status in ((b"", 400), (b"text", 415), (half(photo("JPEG")), 422)):
        assert_problem(post(client, data, route), status)


def test_batch_reports_status_of_each_bad_file(client: FlaskClient) -> None:
    for start in range(0, len(REFUSED), 15):
        files = REFUSED[start : start + 15]
        parts = [upload(data) for data in (*(file.make() for file in files), encoded(plain()))]
        response = client.post("/v1/captions:batch", **form({"image": parts, "overlays": "none"}))
        *problems, good = response.get_json()["results"]
        assert [(problem["status"],) for problem in problems] == [file.statuses for file in files]
        assert good["captions"]


def test_service_recovers_from_bad_files(client: FlaskClient) -> None:
    before = caption_of(client, encoded(plain()))
    for file in REFUSED:
        post(client, file.make())
        assert caption_of(client, encoded(plain())) == before


# Captioned


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_file_decodes_to_plain_image(odd: Odd) -> None:
    opened, expected = open_image(odd.make()).image, odd.shows()
    assert (opened.mode, opened.size, opened.info) == ("RGB", expected.size, {})
    difference = np.abs(np.asarray(opened, int) - np.asarray(expected, int))
    assert difference.mean() <= odd.tolerance


@pytest.mark.parametrize(
    "odd", [odd for odd in ODD if odd.name in ("16-bit grey", "6 in JPEG", "MPO")], ids=str
)
def test_odd_file_is_captioned_as_plain_image(client: FlaskClient, odd: Odd) -> None:
    assert caption_of(client, odd.make()) == caption_of(client, encoded(odd.shows()))


def test_overlay_of_rotated_photo_is_upright(client: FlaskClient) -> None:
    drawn = post(client, turned(6, "PNG")(), "/v1/overlays", word="1")
    assert drawn.status_code == 200
    assert drawn.data == post(client, encoded(plain()), "/v1/overlays", word="1").data


SIDE = 4000
MAX_BYTES_PER_PIXEL = 400 * 2**20 / 7000**2  # at most 400 MiB for an image of 49 megapixels


def test_large_images_stay_within_memory(tmp_path: Path) -> None:
    """A transparent one takes two images of four bytes a pixel, and little more; a rotated one no more."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    transparent, rotated = tmp_path / "transparent", tmp_path / "rotated"
    transparent.write_bytes(blank_png(SIDE, SIDE, colour=RGBA))
    rotated.write_bytes(encoded(Image.new("RGB", (SIDE, SIDE), "red"), "JPEG", exif=exif))
    grown = memory_grown_by(transparent, rotated)
    assert 4 < grown[0] / SIDE**2 <= MAX_BYTES_PER_PIXEL
    assert 0 < grown[1] / SIDE**2 <= MAX_BYTES_PER_PIXEL


def test_49_megapixels_are_accepted() -> None:
    assert open_image(blank_png(7000, 7000, depth=1, colour=GREY)).width == 7000


WATCHED = """
import os, sys
from pathlib import Path
from support.bad_inputs import post
from support.fake_captioner import FakeCaptioner, image_file
from service.app import create_app
from service.config import ServiceConfig

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

client = create_app(ServiceConfig(), FakeCaptioner()).test_client()
for kind in ("JPEG", "PNG"):
    assert post(client, image_file(kind=kind)).status_code == 200
for file in sys.argv[1:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    data, before = Path(file).read_bytes(), memory("VmRSS")
    response = post(client, data)
    assert response.status_code == 200, response.text
    print(memory("VmHWM") - before)
    sys.exit()
"""


def memory_grown_by(*files: Path) -> list[int]:
    """Bytes that a process needs at most while it captions each photo: a fork, since starting takes long."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *files],
        cwd=TESTS.parent,
        env={"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_scrambled_jpeg_that_decodes_is_captioned(client: FlaskClient) -> None:
    assert post(client, scrambled(b"")(), overlays="none").status_code == 200


# The pixels are all that is taken


def test_only_first_frame_is_read() -> None:
    frames = [draw_photo(seed, (120, 90)) for seed in range(1, 31)]
    for kind in ("GIF", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        first = len(encoded(frames[0], kind))
        broken = data[: first + 200] + bytes(len(data) - first - 200)
        assert open_image(broken).image.tobytes() == open_image(data).image.tobytes()


def test_mpo_is_read_as_jpeg(client: FlaskClient) -> None:
    [mpo] = [odd for odd in ODD if odd.name == "MPO"]
    assert Image.open(io.BytesIO(mpo.make())).format == "MPO"
    assert post(client, mpo.make()).get_json()["image"]["format"] == "JPEG"


@pytest.mark.parametrize("fields", [{}, {"word": "0"}, {"format": "gif"}], ids=str)
def test_overlay_has_no_metadata_of_the_photo(client: FlaskClient, fields: dict[str, str]) -> None:
    secret = b"Leaf Street 7"
    exif = Image.Exif()
    exif.update({0x010E: secret.decode(), **PLACE})
    data = encoded(plain(), "JPEG", exif=exif, comment=secret, xmp=secret, icc_profile=secret * 40)
    assert data.count(secret) > 40
    drawn = post(client, data, "/v1/overlays", **fields)
    assert drawn.status_code == 200
    assert secret not in drawn.data
    image = Image.open(io.BytesIO(drawn.data))
    assert not image.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(image.info)


@pytest.mark.parametrize("overlays", ["words", "sheet"])
def test_response_images_have_no_metadata_of_the_photo(client: FlaskClient, overlays: str) -> None:
    plainly, located = photo("JPEG"), with_exif(PLACE)
    assert Image.open(io.BytesIO(located)).getexif()
    text = post(client, located, overlays=overlays).text
    assert len(text) > len(plainly)
    assert all(
        mark not in base64_marks(text) for mark in (b"Exif\0\0", b"http://ns.adobe.com/xap", b"ICC_PROFILE")
    )


def base64_marks(text: str) -> bytes:
    """All ``data:`` images of an answer, decoded, one behind the other."""
    return b"".join(base64.b64decode(found) for found in re.findall(r"base64,([A-Za-z0-9+/=]+)", text))


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.hides], ids=str)
def test_hidden_content_is_never_returned(client: FlaskClient, odd: Odd) -> None:
    for route in ROUTES:
        answer = post(client, odd.make(), route)
        assert answer.status_code == 200
        for hidden in (SCRIPT.encode(), b"PK\3\4", b"secret"):
            assert hidden not in answer.data


def test_inverted_cmyk_is_not_negative() -> None:
    red = open_image(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")).image.getpixel((5, 5))
    assert red[0] > 200
    assert max(red[1:]) < 60


def test_pixel_and_side_limits_come_from_config() -> None:
    config = ServiceConfig(max_pixels=120 * 90, min_side=60, max_side=150)
    client = create_app(config, FakeCaptioner()).test_client()
    for size, status in (
        ((120, 90), 200),
        ((121, 90), 422),
        ((151, 61), 422),
        ((100, 59), 422),
        ((150, 60), 200),
    ):
        assert post(client, encoded(Image.new("RGB", size))).status_code == status


def test_byte_limit_comes_from_config() -> None:
    data = encoded(plain(), "BMP")
    for spare, status in ((1000, 200), (-1, 413)):
        client = create_app(ServiceConfig(max_bytes=len(data) + spare), FakeCaptioner()).test_client()
        assert post(client, data).status_code == status


def test_webp_claiming_4_gb_returns_422(client: FlaskClient) -> None:
    webp = photo("WEBP")
    claim = patched(webp, 4, struct.pack("<I", 2**32 - 2))
    assert_problem(post(client, claim), 422)
