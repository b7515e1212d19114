"""Which package may import which. Read from the source, so nothing needs to be installed."""

import ast
from pathlib import Path

import pytest

import model

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "model": {"service", "training", "flask", "werkzeug", "gunicorn", "argparse"},
    "service": {"training"},
    "training": {"service", "flask"},
}


def imported(path: Path) -> set[str]:
    """First parts of everything the file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_they_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


def test_only_web_imports_flask() -> None:
    files = [
        path for path in (ROOT / "service").rglob("*.py") if "web" not in path.parts and path.name != "app.py"
    ]
    assert files
    for path in files:
        assert not imported(path) & {"flask", "werkzeug"}, path


# What each room may import of its own package, besides itself. Rooms within model are listed in this order.
MODEL = (
    *(
        "errors",
        "files",
        "options",
        "english",
        "config",
        "caption",
        "tokenizer",
        "vocabulary",
        "preprocess",
        "encoder",
    ),
    *("attention", "decoder", "phrases", "network", "checkpoint", "decoding", "captioner"),
)
ROOMS = {
    **{f"model.{room}": {f"model.{one}" for one in MODEL[:place]} for place, room in enumerate(MODEL)},
    "model.drawing": {"model.errors", "model.caption", "model.preprocess"},
    "model.command": {"model.errors"},
}


def room_of(module: str) -> str:
    """Package and first part below it: "model.decoding" of "model.decoding.options"."""
    return ".".join(module.split(".")[:2])


def imported_modules(path: Path) -> set[str]:
    """Modules of this repository that a file imports."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_earlier_rooms(room: str) -> None:
    package, name = room.split(".")
    files = [*(ROOT / package).glob(f"{name}.py"), *(ROOT / package / name).rglob("*.py")]
    assert files
    for path in files:
        used = {room_of(module) for module in imported_modules(path) if module.startswith(f"{package}.")}
        assert used <= ROOMS[room] | {room}, path


def test_every_room_of_model_has_a_row() -> None:
    rooms = {path.stem for path in (ROOT / "model").iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert {f"model.{room}" for room in rooms} == set(ROOMS)


def test_public_names_are_exactly_all() -> None:
    public = {name for name in vars(model) if not name.startswith("_")}
    modules = {path.stem for path in (ROOT / "model").iterdir()}
    assert public - modules == set(model.__all__) - modules
    assert model.__all__ == sorted(model.__all__)
