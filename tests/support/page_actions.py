"""The service for a browser to open, and what people do on its page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.fake_captioner import image_file
from werkzeug.serving import make_server

from service.app import create_app
from service.config import ServiceConfig

MAX_BYTES = 500_000


@contextmanager
def served(captioner: Any) -> Iterator[str]:
    """The service with this captioner; gives the address of its page."""
    app = create_app(ServiceConfig(max_bytes=MAX_BYTES), captioner)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def photo(name: str = "a.jpg", colour: str = "red", size: tuple[int, int] = (480, 320)) -> dict[str, Any]:
    """A file to choose, as Playwright takes it."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": image_file(colour, size)}


def choose(page: Any, *files: dict[str, Any], until: str = "done") -> None:
    """Choose files, and wait until the page is in a state; with "done" until the photo shows too."""
    page.set_input_files("#file", list(files))
    page.locator(f"body[data-state={until}]").wait_for()
    if until == "done":
        page.locator("#photo").wait_for()


def words(page: Any) -> Any:
    """The buttons of the caption."""
    return page.locator("#caption button")


def focused(page: Any) -> str:
    """The id of what has the focus, or else its text."""
    found: str = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
    return found


def readout(page: Any) -> str:
    """What the page says of the word that is pointed at."""
    text: str = page.locator("#readout").inner_text()
    return text
