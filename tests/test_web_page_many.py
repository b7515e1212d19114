"""The page with several photos: a row each, captioned one at a time."""

import csv
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.fake_captioner import FakeCaptioner
from support.page_actions import choose, focused, photo, served, words

from model import Caption

pytest_plugins = ["support.browser"]

BAD = {"name": "bad.txt", "mimeType": "text/plain", "buffer": b"hello" * 99}


def row(page: Any, name: str) -> Any:
    return page.locator("#rows tr", has_text=name)


def wait_for_progress(page: Any, progress: str) -> None:
    """Wait until so many are captioned."""
    page.get_by_text(progress, exact=True).wait_for()


def three(page: Any) -> None:
    """Have a red, a blue and a grey photo captioned."""
    files = [photo(f"{colour}.jpg", colour) for colour in ("red", "blue", "grey")]
    choose(page, *files, until="many")
    wait_for_progress(page, "3 of 3 captioned")


def refuse(page: Any, times: int, status: int = 503) -> list[int]:
    """Let the service refuse the next ``times`` photos as busy; gives a list that grows with each."""
    refused: list[int] = []

    def answer(route: Any) -> None:
        if len(refused) == times:
            return route.fallback()
        refused.append(status)
        problem = '{"detail": "Busy."}'
        route.fulfill(
            status=status,
            headers={"Retry-After": "1"},
            content_type="application/problem+json",
            body=problem,
        )

    page.route("**/v1/captions", answer)
    return refused


def test_failed_photo_does_not_stop_the_others(page: Any) -> None:
    choose(page, photo("red.jpg"), BAD, photo("blue.jpg", "blue"), until="many")
    wait_for_progress(page, "2 of 3 captioned, 1 failed")
    assert page.locator("#rows tr").count() == 3
    for colour in ("red", "blue"):
        assert row(page, f"{colour}.jpg").locator("textarea").input_value() == f"A {colour} wide picture"
        assert row(page, f"{colour}.jpg").locator("img").evaluate("image => image.naturalWidth") == 480
    failed = row(page, "bad.txt")
    assert "not an image of an accepted type" in failed.inner_text()
    assert failed.locator("textarea, .retry").filter(visible=True).count() == 0
    page.locator("#announcement", has_text="2 of 3 captioned, 1 failed.").wait_for(state="attached")


def test_photos_are_sent_one_at_a_time(open_page: Callable[..., Any]) -> None:
    class CountingCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            release.wait(30)
            return super().caption(*args, **kwargs)

    release = threading.Event()
    with served(CountingCaptioner()) as address:
        page = open_page(address=address)
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        choose(page, *[photo(f"{i}.jpg") for i in range(4)], until="many")
        row(page, "0.jpg").get_by_text("captioning").wait_for()
        assert [row(page, f"{i}.jpg").locator(".state").inner_text() for i in (1, 2, 3)] == ["waiting"] * 3
        assert sum(url.endswith("/v1/captions") for url in sent) == 1
        release.set()
        wait_for_progress(page, "4 of 4 captioned")


def test_busy_service_is_retried(page: Any) -> None:
    refused = refuse(page, times=2)
    choose(page, photo("a.jpg"), photo("b.jpg"), until="many")
    row(page, "a.jpg").get_by_text("server busy, retrying").wait_for()
    wait_for_progress(page, "2 of 2 captioned")
    assert refused == [503, 503]


def test_rate_limited_request_is_retried(page: Any) -> None:
    refused = refuse(page, times=1, status=429)
    choose(page, photo())
    assert refused == [429]
    assert words(page).count() == 4


def test_failed_row_can_be_retried(page: Any) -> None:
    page.route("**/v1/captions", lambda route: route.abort())
    page.route("**/healthz", lambda route: route.abort())
    choose(page, photo("a.jpg"), photo("b.jpg"), until="many")
    wait_for_progress(page, "0 of 2 captioned, 2 failed")
    page.unroute("**/v1/captions")
    row(page, "b.jpg").get_by_role("button", name="Try again").press("Enter")
    wait_for_progress(page, "1 of 2 captioned, 1 failed")
    assert focused(page) == "b.jpg"


def test_row_opens_large_and_returns(page: Any) -> None:
    three(page)
    row(page, "blue.jpg").locator(".open").press("Enter")
    page.locator("body[data-state=done]").wait_for()
    assert words(page).all_inner_texts() == ["a", "blue", "wide", "picture"]
    assert page.locator("#position").inner_text() == "2 of 3, blue.jpg"
    assert focused(page) == "result"
    page.locator("#next").press("Enter")
    assert page.locator("#position").inner_text() == "3 of 3, grey.jpg"
    page.locator("#back").press("Enter")
    assert page.get_attribute("body", "data-state") == "many"
    assert focused(page) == "grey.jpg"


def test_edits_are_shared_between_views(page: Any) -> None:
    three(page)
    field = row(page, "blue.jpg").locator("textarea")
    field.fill("x" * 130)
    assert "130 characters, more than" in row(page, "blue.jpg").locator(".length.long").inner_text()
    row(page, "blue.jpg").locator(".open").click()
    assert page.input_value("#text") == "x" * 130
    page.fill("#text", "Sky")
    page.click("#back")
    assert field.input_value() == "Sky"
    assert row(page, "red.jpg").locator("textarea").input_value() == "A red wide picture"


def test_added_photo_opens_large_and_joins_the_list(page: Any) -> None:
    three(page)
    choose(page, photo("green.jpg", "green"))
    assert page.locator("#caption").inner_text() == "a green wide picture"
    page.click("#back")
    assert page.locator("#rows tr").count() == 4


def test_saved_captions_include_edits(page: Any) -> None:
    choose(page, photo("red.jpg"), BAD, photo("blue.jpg", "blue"), until="many")
    wait_for_progress(page, "2 of 3 captioned, 1 failed")
    row(page, "blue.jpg").locator("textarea").fill("The sea")
    with page.expect_download() as download:
        page.click("#save-all")
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert list(csv.reader(io.StringIO(text))) == [
        ["image", "caption"],
        ["red.jpg", "A red wide picture"],
        ["blue.jpg", "The sea"],
    ]


def test_removing_a_row_focuses_the_next(page: Any) -> None:
    three(page)
    for name, then in (("blue.jpg", "grey.jpg"), ("grey.jpg", "red.jpg"), ("red.jpg", "file")):
        row(page, name).get_by_role("button", name="Remove").press("Enter")
        assert row(page, name).count() == 0
        assert focused(page) == then
    assert page.get_attribute("body", "data-state") == "empty"


def test_row_in_progress_can_be_removed(page: Any) -> None:
    page.route("**/v1/captions", lambda route: None, times=1)  # never answers
    choose(page, photo("a.jpg"), photo("b.jpg"), until="many")
    row(page, "a.jpg").get_by_role("button", name="Remove").click()
    wait_for_progress(page, "1 of 1 captioned")


def test_starting_over_confirms_losing_edits(page: Any) -> None:
    three(page)
    row(page, "red.jpg").locator("textarea").fill("Mine")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#clear")
    assert page.locator("#rows tr").count() == 3
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#clear")
    page.locator("body[data-state=empty]").wait_for()
    assert page.locator("#rows tr").count() == 0
    assert focused(page) == "file"
