"""The page with one photo, in a real browser."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from support.fake_captioner import FakeCaptioner, assert_problem
from support.page_actions import MAX_BYTES, choose, focused, photo, readout, words

from service.app import create_app
from service.config import ServiceConfig
from service.web.page import EXAMPLES

pytest_plugins = ["support.browser"]


# Photos come in


def test_chosen_photo_is_captioned(page: Any) -> None:
    choose(page, photo(colour="blue"))
    assert words(page).all_inner_texts() == ["a", "blue", "wide", "picture"]
    assert page.locator("#caption").inner_text() == "a blue wide picture"
    assert page.get_attribute("#image", "alt") == "a blue wide picture"
    page.locator("#announcement", has_text="Caption: a blue wide picture.").wait_for(state="attached")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_dropped_or_pasted_photo_is_captioned(page: Any, way: str) -> None:
    data = list(photo(colour="green")["buffer"])
    page.evaluate(
        """([way, data]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], "a.jpg", { type: "image/jpeg" }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(way === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: transfer })
                : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
        }""",
        [way, data],
    )
    page.locator("body[data-state=done]").wait_for()
    assert page.locator("#caption").inner_text() == "a green wide picture"


def test_text_can_be_pasted_and_dragged(page: Any) -> None:
    choose(page, photo())
    is_left_alone = page.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.setData("text/plain", "a word");
            const options = { bubbles: true, cancelable: true };
            return document.getElementById("text").dispatchEvent(
                new DragEvent("drop", { ...options, dataTransfer: transfer }));
        }"""
    )
    assert is_left_alone
    assert page.get_attribute("body", "data-state") == "done"


def test_camera_takes_photo_and_is_released(open_page: Callable[..., Any]) -> None:
    page = open_page(permissions=["camera"])
    page.click("#open-camera")
    page.wait_for_selector("#viewfinder")
    page.locator("#take-photo").wait_for()
    while not page.evaluate("document.getElementById('viewfinder').videoWidth"):
        page.wait_for_timeout(50)
    track = page.evaluate_handle("document.getElementById('viewfinder').srcObject.getTracks()[0]")
    page.click("#take-photo")
    page.locator("body[data-state=done]").wait_for()
    page.locator("#photo").wait_for()
    assert track.evaluate("track => track.readyState") == "ended"
    assert page.evaluate("document.getElementById('image').naturalWidth") > 100


def test_denied_camera_is_reported(page: Any) -> None:
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error()); }")
    page.click("#open-camera")
    page.locator("#problem", has_text="The camera is not available.").wait_for()


def test_phone_uses_its_own_camera(open_page: Callable[..., Any]) -> None:
    phone = """
        const ask = window.matchMedia.bind(window);
        window.matchMedia = (query) => (query.includes("coarse") ? { matches: true } : ask(query));
    """
    page = open_page(script=phone)
    assert page.locator("#camera-label").is_visible()
    assert not page.locator("#open-camera").is_visible()
    assert page.get_attribute("#camera-input", "capture") == "environment"
    page.set_input_files("#camera-input", photo(colour="green"))
    page.locator("body[data-state=done]").wait_for()
    assert page.locator("#caption").inner_text() == "a green wide picture"


def test_example_is_captioned_on_click(page: Any) -> None:
    page.get_by_role("button", name="People on stairs").press("Enter")
    page.locator("body[data-state=done]").wait_for()
    assert page.locator("#caption").inner_text().endswith("square picture")
    assert focused(page) == "result"


def test_form_works_without_javascript(open_page: Callable[..., Any]) -> None:
    page = open_page(java_script_enabled=False)
    page.set_input_files("#file", photo())
    with page.expect_response("**/v1/overlays") as answer:
        page.get_by_role("button", name="Show attention maps").click()
    assert answer.value.header_value("content-type") == "image/png"
    page.locator("img").wait_for()  # the browser's own page around the image


# Words show their attention maps


def peak(page: Any) -> list[int]:
    """Row and column, of three each, where the heat map differs most from the photo's own grey."""
    found: list[int] = page.evaluate(
        """() => {
            const canvas = document.getElementById("heat");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const light = (row, column) => {
                const x = Math.round(((column + 0.5) * canvas.width) / 3);
                const y = Math.round(((row + 0.5) * canvas.height) / 3);
                const at = 4 * (y * canvas.width + x);
                return data[at] + data[at + 1] + data[at + 2];
            };
            const cells = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((cell) => [Math.floor(cell / 3), cell % 3]);
            return cells.sort((a, b) => light(...b) - light(...a))[0];
        }"""
    )
    return found


def test_hovered_word_shows_its_attention(open_page: Callable[..., Any]) -> None:
    page = open_page(reduced_motion="reduce")  # no glide: what is drawn is drawn at once
    choose(page, photo(colour="grey"))
    assert page.locator("#heat.visible").count() == 0
    for index, position in enumerate(["top left", "top", "top right", "on the left"]):
        words(page).nth(index).hover()
        assert f"attention {position if position.startswith('on') else f'at the {position}'}" in readout(page)
        assert peak(page) == list(divmod(index, 3))
    page.mouse.move(1, 1)
    assert page.locator("#heat.visible").count() == 0


def test_arrow_keys_move_through_words(page: Any) -> None:
    choose(page, photo())
    walked = []
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        walked.append(focused(page))
    assert walked == ["a", "red", "picture", "picture", "wide", "a"]
    page.keyboard.press("Escape")
    assert page.locator("#heat.visible").count() == 0
    page.keyboard.press("ArrowRight")
    assert page.locator("#caption .current").inner_text() == "a"


def test_keys_of_inputs_are_not_captured(page: Any) -> None:
    choose(page, photo())
    for part in ("#text", "#opacity"):
        page.focus(part)
        page.keyboard.press("ArrowLeft")
        assert page.locator("#caption .current").count() == 0
    assert page.input_value("#opacity") == "95"


def test_animation_plays_and_stops(page: Any) -> None:
    choose(page, photo())
    play = page.locator("#play")
    page.evaluate(
        """() => {
            const button = document.getElementById("play");
            const keep = (said, text) => said.at(-1) === text || said.push(text);
            [window.played, window.labels] = [[], []];
            new MutationObserver(() => keep(window.labels, button.textContent))
                .observe(button, { childList: true });
            new MutationObserver(() => {
                const word = document.querySelector("#caption .current")?.textContent;
                keep(window.played, word ?? "none");
            }).observe(document.getElementById("caption"), { subtree: true, attributeFilter: ["class"] });
        }"""
    )
    play.press("Enter")
    page.locator("#play", has_text="Play").wait_for()
    assert page.evaluate("window.played") == ["a", "red", "wide", "picture", "none"]
    assert page.evaluate("window.labels") == ["Stop", "Play"]
    play.evaluate("button => { button.click(); button.click(); }")  # at once: it ends by itself too
    assert play.inner_text() == "Play"
    assert page.locator("#heat.visible").count() == 0


def test_heat_opacity_can_be_changed(open_page: Callable[..., Any]) -> None:
    page = open_page(reduced_motion="reduce")
    choose(page, photo())
    page.locator("#opacity").fill("40")
    words(page).first.focus()
    assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "0.4"


# What goes wrong is said


def test_too_large_photo_is_refused_before_upload(page: Any) -> None:
    page.route("**/v1/captions", lambda route: pytest.fail("it was sent"))
    choose(page, {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": bytes(MAX_BYTES + 1)}, until="failed")
    assert page.locator("#problem").inner_text() == "This photo is too large (0.5 MB); the limit is 0.5 MB."


def test_error_detail_is_shown(page: Any) -> None:
    choose(page, {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello" * 99}, until="failed")
    assert "not an image of an accepted type" in page.locator("#problem").inner_text()
    assert not page.locator("#retry").is_visible()
    choose(page, photo())
    assert page.locator("#problem").inner_text() == ""


def test_unavailable_service_can_be_retried(page: Any) -> None:
    page.route("**/v1/captions", lambda route: route.abort())
    page.route("**/healthz", lambda route: route.abort())
    choose(page, photo(), until="failed")
    assert "not responding" in page.locator("#problem").inner_text()
    page.unroute("**/v1/captions")
    page.click("#retry")
    page.locator("body[data-state=done]").wait_for()


def test_captioning_can_be_cancelled(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.route("**/v1/captions", lambda route: None)  # never answers
    choose(page, photo(), until="busy")
    page.locator("#cancel").press("Enter")
    page.locator("body[data-state=empty]").wait_for()
    assert focused(page) == "file"


# What is served


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app(ServiceConfig(), FakeCaptioner()).test_client()


def test_examples_are_cacheable(client: FlaskClient) -> None:
    listed = client.get("/").text
    for name in EXAMPLES:
        assert f"/examples/{name}" in listed
        with client.get(f"/examples/{name}") as answer:
            assert min(Image.open(io.BytesIO(answer.data)).size) >= 224
            assert "max-age=86400" in answer.headers["Cache-Control"]
            tag = answer.headers["ETag"]
        with client.get(f"/examples/{name}", headers={"If-None-Match": tag}) as again:
            assert again.status_code == 304


@pytest.mark.parametrize("name", ["README.md", "nothing.jpg", "..%2fREADME.md", "../README.md"])
def test_only_examples_are_served(client: FlaskClient, name: str) -> None:
    assert_problem(client.get(f"/examples/{name}"), 404)


@pytest.mark.parametrize(("max_bytes", "shown"), [(400_000, "0.4"), (12_500_000, "12.5"), (20_000_000, "20")])
def test_page_shows_upload_limit_in_megabytes(max_bytes: int, shown: str) -> None:
    page = create_app(ServiceConfig(max_bytes=max_bytes), FakeCaptioner()).test_client().get("/").text
    assert f"up to {shown}&nbsp;MB each" in page
