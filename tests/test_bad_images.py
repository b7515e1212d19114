"""Files of strangers: the bad are refused with the right status, the odd are captioned rightly.

The cases are those of ``bad_inputs.CASES``.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import (
    CASES,
    REFUSED,
    RGBA,
    File,
    blank_png,
    encoded,
    form,
    patched,
    photo,
    post,
    scrambled,
    upload,
)
from conftest import draw_photo
from fake_captioner import FakeCaptioner, assert_problem
from flask import Flask
from flask.testing import FlaskClient
from odd_pictures import EXACT, ODD, ORIENTATION, PLACE, SCRIPT, STORED, Odd, plain, turned, with_exif
from PIL import Image

from model import Captioner, open_image
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


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("file", REFUSED, ids=str)
def test_a_bad_file_is_refused_with_its_status(client: FlaskClient, file: File, route: str) -> None:
    [status] = file.statuses
    assert_problem(post(client, file.make(), route), status)


def test_of_several_files_each_bad_one_has_its_own_status(client: FlaskClient) -> None:
    for start in range(0, len(REFUSED), 15):
        files = REFUSED[start : start + 15]
        parts = [upload(data) for data in (*(file.make() for file in files), encoded(plain()))]
        response = client.post("/v1/captions:batch", **form({"image": parts, "overlays": "none"}))
        *problems, good = response.get_json()["results"]
        assert [(problem["status"],) for problem in problems] == [file.statuses for file in files]
        assert good["captions"]


def test_the_service_is_as_well_as_before_after_every_bad_file(client: FlaskClient) -> None:
    before = caption_of(client, encoded(plain()))
    for file in REFUSED:
        post(client, file.make())
        assert caption_of(client, encoded(plain())) == before


# Captioned


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_file_shows_the_plain_picture(odd: Odd) -> None:
    opened, expected = open_image(odd.make()).image, odd.shows()
    assert (opened.mode, opened.size, opened.info) == ("RGB", expected.size, {})
    difference = np.abs(np.asarray(opened, int) - np.asarray(expected, int))
    assert difference.mean() <= odd.tolerance


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_file_is_captioned_as_the_plain_picture(client: FlaskClient, odd: Odd) -> None:
    assert caption_of(client, odd.make()) == caption_of(client, encoded(odd.shows()))


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.tolerance == EXACT], ids=str)
def test_an_odd_file_without_loss_gets_the_very_captions_of_the_plain_picture(
    captioner: Captioner, odd: Odd
) -> None:
    assert captioner.caption([open_image(odd.make()).image]) == captioner.caption([odd.shows()])


@pytest.mark.parametrize("orientation", STORED)
def test_case_42_overlays_of_a_turned_photo_are_upright(client: FlaskClient, orientation: int) -> None:
    drawn = post(client, turned(orientation, "PNG")(), "/v1/overlays", word="1")
    assert drawn.status_code == 200
    assert drawn.data == post(client, encoded(plain()), "/v1/overlays", word="1").data


def test_case_33_a_photo_of_49_megapixels_takes_at_most_400_mebibytes() -> None:
    """Even where it is transparent: two pictures of four bytes a pixel, and little more."""
    grown = memory_grown_by(blank_png(7000, 7000, colour=RGBA))
    assert 7000 * 7000 * 4 < grown <= 400 * 2**20


def test_case_33_a_turned_photo_of_49_megapixels_takes_no_more() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert memory_grown_by(encoded(Image.new("RGB", (7000, 7000), "red"), "JPEG", exif=exif)) <= 400 * 2**20


WATCHED = """
import sys
from bad_inputs import post
from fake_captioner import FakeCaptioner, picture
from service.app import create_app
from service.config import ServiceConfig

def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

client = create_app(ServiceConfig(), FakeCaptioner()).test_client()
for kind in ("JPEG", "PNG"):
    assert post(client, picture(kind=kind)).status_code == 200
data, before = sys.stdin.buffer.read(), memory("VmRSS")
response = post(client, data)
assert response.status_code == 200, response.text
print(memory("VmHWM") - before)
"""


def memory_grown_by(data: bytes) -> int:
    """Bytes that a process of its own needs at most while it captions a photo."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        input=data,
        cwd=TESTS.parent,
        env={"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


def test_case_28_a_jpeg_that_still_decodes_is_captioned_for_it_has_no_checksum(client: FlaskClient) -> None:
    assert post(client, scrambled(b"")(), overlays="none").status_code == 200


# The pixels are all that is taken


def test_case_45_frames_behind_the_first_are_not_even_read() -> None:
    frames = [draw_photo(seed, (120, 90)) for seed in range(1, 31)]
    for kind in ("GIF", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        first = len(encoded(frames[0], kind))
        broken = data[: first + 200] + bytes(len(data) - first - 200)
        assert open_image(broken).image.tobytes() == open_image(data).image.tobytes()


def test_case_44_of_two_pictures_in_one_file_the_first_is_taken_and_called_jpeg(client: FlaskClient) -> None:
    [mpo] = [odd for odd in ODD if odd.case == 44]
    assert Image.open(io.BytesIO(mpo.make())).format == "MPO"
    assert post(client, mpo.make()).get_json()["image"]["format"] == "JPEG"


@pytest.mark.parametrize("fields", [{}, {"word": "0"}, {"format": "gif"}], ids=str)
def test_case_50_a_picture_we_draw_carries_no_metadata_of_the_photo(
    client: FlaskClient, fields: dict[str, str]
) -> None:
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
def test_case_50_nor_do_the_pictures_within_an_answer(client: FlaskClient, overlays: str) -> None:
    plainly, located = photo("JPEG"), with_exif(PLACE)
    assert Image.open(io.BytesIO(located)).getexif()
    text = post(client, located, overlays=overlays).text
    assert len(text) > len(plainly)
    assert all(
        mark not in base64_marks(text) for mark in (b"Exif\0\0", b"http://ns.adobe.com/xap", b"ICC_PROFILE")
    )


def base64_marks(text: str) -> bytes:
    """All ``data:`` pictures of an answer, decoded, one behind the other."""
    return b"".join(base64.b64decode(found) for found in re.findall(r"base64,([A-Za-z0-9+/=]+)", text))


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd.case in (47, 49)], ids=str)
def test_what_hides_in_a_file_never_comes_back(client: FlaskClient, odd: Odd) -> None:
    for route in ROUTES:
        answer = post(client, odd.make(), route)
        assert answer.status_code == 200
        for hidden in (SCRIPT.encode(), b"PK\3\4", b"secret"):
            assert hidden not in answer.data


def test_case_41_an_inverted_cmyk_photo_is_not_a_negative() -> None:
    red = open_image(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")).image.getpixel((5, 5))
    assert red[0] > 200
    assert max(red[1:]) < 60


def test_limits_of_pixels_and_sides_are_those_of_the_configuration() -> None:
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


def test_limits_of_bytes_are_those_of_the_configuration() -> None:
    data = encoded(plain(), "BMP")
    for spare, status in ((1000, 200), (-1, 413)):
        client = create_app(ServiceConfig(max_bytes=len(data) + spare), FakeCaptioner()).test_client()
        assert post(client, data).status_code == status


def test_a_claim_of_more_than_all_is_refused_without_reading_on(client: FlaskClient) -> None:
    webp = photo("WEBP")
    claim = patched(webp, 4, struct.pack("<I", 2**32 - 2))
    assert_problem(post(client, claim), 422)


def test_every_case_has_a_test() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_bad_*.py"))
    named = {int(number) for number in re.findall(r"case[ _](\d+)[_:]", sources)}
    assert set(CASES) == named | {file.case for file in REFUSED} | {odd.case for odd in ODD}
