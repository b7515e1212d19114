"""Accessibility of the page: axe, keyboard, small screens, reduced motion."""

from collections.abc import Callable
from typing import Any

import pytest
from support.page_actions import choose, focused, photo, words

pytest_plugins = ["support.browser"]

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
BAD = {"name": "bad.txt", "mimeType": "text/plain", "buffer": b"hello" * 99}
STATES = ("empty", "busy", "done", "many", "failed", "camera")


def bring(page: Any, state: str) -> None:
    """Bring the page to a state, as people do."""
    if state == "busy":
        page.route("**/v1/captions", lambda route: None)
        choose(page, photo(), until="busy")
    elif state == "done":
        choose(page, photo())
        words(page).nth(1).focus()
        page.fill("#text", "x" * 130)
        words(page).nth(1).focus()
    elif state == "many":
        choose(page, photo("a.jpg"), BAD, photo("b.jpg", "blue"), until="many")
        page.locator("#announcement", has_text="captioned, 1 failed.").wait_for(state="attached")
    elif state == "failed":
        choose(page, BAD, until="failed")
    elif state == "camera":
        page.click("#open-camera")
        page.locator("#camera[open]").wait_for()


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_no_violations(open_page: Callable[..., Any], state: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(reduced_motion="reduce", permissions=["camera"])
    bring(page, state)
    papers = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
        found = axe.run(page, options=options).response
        assert len(found["passes"]) > 10
        assert [
            (rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found["violations"]
        ] == []
    assert papers[0] != papers[1]


@pytest.mark.parametrize("state", STATES)
def test_no_horizontal_scrolling_on_small_screens(open_page: Callable[..., Any], state: str) -> None:
    page = open_page(viewport={"width": 320, "height": 568}, permissions=["camera"])
    bring(page, state)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_text_at_200_percent_fits_small_screens(open_page: Callable[..., Any]) -> None:
    page = open_page(viewport={"width": 640, "height": 800})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    for state in ("empty", "done", "many"):
        bring(page, state)
        assert page.evaluate("document.documentElement.scrollWidth") <= 640


def test_targets_are_at_least_24_pixels(open_page: Callable[..., Any]) -> None:
    page = open_page(viewport={"width": 320, "height": 568})
    for state in ("empty", "done", "many"):
        bring(page, state)
        targets = page.locator(
            "main button, main textarea, #opacity, #drop-zone, #clear, #alternatives label, #caption button"
        ).filter(visible=True)
        sizes = targets.evaluate_all(
            "all => all.map((e) => [e.id || e.textContent, e.offsetWidth, e.offsetHeight])"
        )
        assert len(sizes) > 5
        assert [target for target in sizes if min(target[1:]) < 24] == []


def test_panorama_scrolls_to_attention_on_phones(
    open_page: Callable[..., Any],
) -> None:
    page = open_page(viewport={"width": 320, "height": 568}, reduced_motion="reduce")
    choose(page, photo(size=(2400, 300)))
    page.locator("#frame[tabindex='0']").wait_for()
    box = page.locator("#photo").bounding_box()
    assert box["height"] > 100
    assert box["width"] / box["height"] == pytest.approx(8, rel=0.02)
    words(page).nth(2).focus()  # its map peaks at the top right
    assert page.evaluate("document.getElementById('frame').scrollLeft") > 500
    words(page).nth(0).focus()
    assert page.evaluate("document.getElementById('frame').scrollLeft") < 300


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_reduced_motion_is_respected(open_page: Callable[..., Any], motion: str) -> None:
    count = """
        window.frames_asked = 0;
        const ask = window.requestAnimationFrame.bind(window);
        window.requestAnimationFrame = (step) => (window.frames_asked++, ask(step));
    """
    page = open_page(reduced_motion=motion, script=count)
    choose(page, photo())
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.locator("#heat.visible").wait_for()
    assert (page.evaluate("window.frames_asked") == 0) == (motion == "reduce")
    duration = page.evaluate("getComputedStyle(document.getElementById('heat')).transitionDuration")
    assert (duration == "0s") == (motion == "reduce")


def test_page_works_by_keyboard_alone(page: Any) -> None:
    reached = []
    while "cat.jpg" not in reached[-1:]:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.name ?? document.activeElement.id"))
        assert len(reached) < 20
    assert reached[:2] == ["file", "open-camera"]
    page.keyboard.press("Enter")
    page.locator("body[data-state=done]").wait_for()
    assert focused(page) == "result"
    passed = []
    while "csv" not in passed:
        page.keyboard.press("Tab")
        passed.append(focused(page))
        assert len(passed) < 20
    assert passed[:3] == ["a", "play", "opacity"]
    assert {"text", "sheet", "gif", "Copy text", "Copy <img alt>", "Copy Markdown"} <= set(passed)
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_page_stores_nothing(page: Any) -> None:
    choose(page, photo("a.jpg"), photo("b.jpg"), until="many")
    page.get_by_text("2 of 2 captioned", exact=True).wait_for()
    page.locator("#rows textarea").first.fill("Mine")
    kept = page.evaluate(
        """async () => [
            localStorage.length, sessionStorage.length, document.cookie, (await caches.keys()).length,
            (await indexedDB.databases()).length, (await navigator.serviceWorker.getRegistrations()).length,
        ]"""
    )
    assert kept == [0, 0, "", 0, 0, 0]
    assert page.context.cookies() == []
    page.reload()
    assert page.locator("#rows tr").count() == 0
    assert page.get_attribute("body", "data-state") == "empty"


def test_results_are_announced_to_screen_readers(page: Any) -> None:
    choose(page, photo(colour="green"))
    described = words(page).nth(0).get_attribute("aria-describedby")
    words(page).nth(0).focus()
    assert "attention at the top left" in page.locator(f"#{described}").inner_text()
    assert page.get_by_role("img", name="a green wide picture").is_visible()
