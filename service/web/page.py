"""The page that captions by hand, and the photos it offers to try."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, abort, current_app, render_template, send_from_directory

EXAMPLES_FOLDER = Path(__file__).parents[2] / "examples"
# File name, and what the photo shows, for those who do not see it.
EXAMPLES = {
    "photographer.jpg": "A man with a camera on a tripod",
    "stairs.jpg": "People on stairs",
    "cat.jpg": "A cat",
    "astronaut.jpg": "An astronaut in an orange suit",
    "raccoon.jpg": "A raccoon",
    "coffee.jpg": "A cup of coffee",
    "rocket.jpg": "The launch of a rocket",
}
EXAMPLES_MAX_AGE = 86_400  # seconds a browser may keep them

page = Blueprint("page", __name__)


@page.get("/")
def index() -> str:
    """The page. It promises maps only of a model that has them."""
    captioner = current_app.extensions["inference"].captioner
    return render_template(
        "index.html",
        max_bytes=current_app.config["MAX_CONTENT_LENGTH"],
        has_maps=captioner.config.attention != "none",
        examples={name: shows for name, shows in EXAMPLES.items() if (EXAMPLES_FOLDER / name).is_file()},
    )


@page.get("/examples/<name>")
def example(name: str) -> Response:
    """One of the photos to try; nothing else that may lie beside them."""
    if name not in EXAMPLES:
        abort(404, f"There is no such example; there are {', '.join(EXAMPLES)}.")
    return send_from_directory(EXAMPLES_FOLDER, name, max_age=EXAMPLES_MAX_AGE)
