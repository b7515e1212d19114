"""Fixtures that open the page in a real browser, for modules with ``pytest_plugins = ["support.browser"]``.

Whatever a test does, its page must not throw, nor ask any other computer for anything. Where there is no
browser, its tests are skipped.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from support.fake_captioner import FakeCaptioner
from support.page_actions import served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera that sees a moving pattern
)
TIMEOUT = 30_000  # milliseconds that a busy machine may take over anything


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=6 * TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page of a service with the usual captioner."""
    with served(FakeCaptioner()) as address:
        yield address


class Tab(NamedTuple):
    """A tab of the browser, and what is seen of it."""

    page: Any
    seen: dict[str, list[str]]


@pytest.fixture(scope="module")
def tab_with(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """The tab with these options of a Playwright context. Tests share it: a new one costs more than most of
    them, and the page stores nothing (``test_page_stores_nothing``)."""
    tabs = dict[str, Tab]()
    with ExitStack() as contexts:

        def tab_with(**options: Any) -> Tab:
            key = repr(sorted(options.items()))
            if key not in tabs:
                script = options.pop("script")
                context = contexts.enter_context(chromium.new_context(**options))
                context.add_init_script(script)
                page = context.new_page()
                page.set_default_timeout(TIMEOUT)
                tabs[key] = Tab(page, watched(page))
            return tabs[key]

        yield tab_with


@pytest.fixture
def open_page(tab_with: Callable[..., Tab], address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page, newly loaded: ``open_page()``, or with another ``address``, a ``script`` to run before
    it, or any other option of a Playwright context."""
    with ExitStack() as tabs:

        def opened(*, address: str = address, script: str = "", **options: Any) -> Any:
            tab = tab_with(script=script, **options)
            tabs.callback(check_and_clear, tab, address)
            tab.page.goto(address)
            return tab.page

        yield opened


def check_and_clear(tab: Tab, address: str) -> None:
    """Check what was seen, and leave nothing of this test to the next."""
    tab.page.unroute_all()
    tab.page.mouse.move(0, 0)
    tab.page.goto("about:blank")
    try:
        assert_no_errors_or_requests(address, tab.seen)
    finally:
        for events in tab.seen.values():
            events.clear()


def watched(page: Any) -> dict[str, list[str]]:
    """Where the page has sent requests, and what it has thrown; both grow while it lives."""
    seen: dict[str, list[str]] = {"requests": [], "errors": []}
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("console", lambda message: seen["errors"].extend(_violations(message)))
    return seen


def _violations(message: Any) -> list[str]:
    # An image that is opened by itself is shown by the browser's own page, which styles itself.
    is_image = message.location.get("url", "").endswith("/v1/overlays")
    return [message.text] if "Content Security Policy" in message.text and not is_image else []


def assert_no_errors_or_requests(address: str, seen: dict[str, list[str]]) -> None:
    own = (f"{address}/", "blob:", "data:")
    assert seen["errors"] == []
    assert [url for url in seen["requests"] if not url.startswith(own)] == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    """The page as it is first seen."""
    return open_page()
