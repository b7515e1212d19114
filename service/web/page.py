"""The web page and its example photos."""

from pathlib import Path

from flask import Blueprint, Response, abort, current_app, render_template, send_from_directory

from service.web.context import current_worker

EXAMPLES_FOLDER = Path(__file__).parents[2] / "examples"
# File name and alternative text.
EXAMPLES = {
    "photographer.jpg": "A man with a camera on a tripod",
    "stairs.jpg": "People on stairs",
    "cat.jpg": "A cat",
    "astronaut.jpg": "An astronaut in an orange suit",
    "raccoon.jpg": "A raccoon",
    "coffee.jpg": "A cup of coffee",
    "rocket.jpg": "The launch of a rocket",
}

page = Blueprint("page", __name__)


@page.get("/")
def index() -> str:
    """The page; it mentions attention only for a model that has it."""
    captioner = current_worker().captioner
    return render_template(
        "index.html",
        max_bytes=current_app.config["MAX_CONTENT_LENGTH"],
        has_maps=captioner.config.attention != "none",
        examples={name: shows for name, shows in EXAMPLES.items() if (EXAMPLES_FOLDER / name).is_file()},
    )


@page.get("/examples/<name>")
def example(name: str) -> Response:
    """An example photo, and no other file of the folder."""
    if name not in EXAMPLES:
        abort(404, f"No such example; valid are {', '.join(EXAMPLES)}.")
    return send_from_directory(EXAMPLES_FOLDER, name, max_age=86_400)  # seconds
