"""Fixtures that open the page in a real browser, for modules with ``pytest_plugins = ["support.browser"]``.

Whatever a test does, its page must not throw, nor ask any other computer for anything. Where there is no
browser, its tests are skipped.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

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


@pytest.fixture
def open_page(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page: ``open_page()``, or with another ``address``, a ``script`` to run before it, or any
    other option of a Playwright context."""
    with ExitStack() as contexts:

        def opened(*, address: str = address, script: str = "", **options: Any) -> Any:
            context = chromium.new_context(**options)
            contexts.callback(context.close)
            if script:
                context.add_init_script(script)
            page = context.new_page()
            page.set_default_timeout(TIMEOUT)
            contexts.callback(assert_no_errors_or_requests, address, watched(page))
            page.goto(address)
            return page

        yield opened


def watched(page: Any) -> dict[str, list[str]]:
    """Where the page has sent requests, and what it has thrown; both grow while it lives."""
    seen: dict[str, list[str]] = {"requests": [], "errors": []}
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("console", lambda message: seen["errors"].extend(_violations(message)))
    return seen


def _violations(message: Any) -> list[str]:
    # An image that is opened by itself is shown by the browser's own page, which styles itself.
    is_picture = message.location.get("url", "").endswith("/v1/overlays")
    return [message.text] if "Content Security Policy" in message.text and not is_picture else []


def assert_no_errors_or_requests(address: str, seen: dict[str, list[str]]) -> None:
    own = (f"{address}/", "blob:", "data:")
    assert seen["errors"] == []
    assert [url for url in seen["requests"] if not url.startswith(own)] == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    """The page as it is first seen."""
    return open_page()
