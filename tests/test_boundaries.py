"""Which room may import which, a row a room. Read from the source, so nothing needs to be installed."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import model

ROOT = Path(__file__).parents[1]
PACKAGES = ("model", "training", "service", "benchmarks")

# The rooms of model, modules or packages: each may import those before it.
MODEL = (
    *("errors", "files", "options", "english", "config", "caption", "tokenizer", "vocabulary", "preprocess"),
    *("encoder", "grid_classifier", "evidence", "attention", "decoder", "phrases", "labels", "endings"),
    *("confidence", "network"),
    *("checkpoint", "decoding", "captioner"),
)
TRAINING_BASIS = {"model", "training.errors"}
SERVICE_BASIS = {"model", "service.errors"}
# What each room may import besides itself. A module belongs to the longest name that fits it.
MAY_IMPORT = {
    **{f"model.{room}": {f"model.{one}" for one in MODEL[:place]} for place, room in enumerate(MODEL)},
    "model.drawing": {"model.errors", "model.caption", "model.preprocess"},
    "model.command": {"model.errors"},
    "model": {"model"},
    "training.data": TRAINING_BASIS,
    "training.evaluation": TRAINING_BASIS | {"training.data"},
    "training.engine": TRAINING_BASIS | {"training.data"},
    "training.reporting": TRAINING_BASIS | {"training.data", "training.evaluation", "training.engine"},
    "training.runs": TRAINING_BASIS
    | {"training.data", "training.evaluation", "training.engine", "training.reporting"},
    "training": {"model", "training"},  # comparison, cli and the commands
    "service.worker": SERVICE_BASIS,
    "service.files": SERVICE_BASIS,
    "service.web": SERVICE_BASIS | {"service.config", "service.worker"},
    "service": {"model", "service"},
    "benchmarks": set(PACKAGES),
}
COMMANDS = {
    *(f"training.{name}" for name in ("fit", "evaluate", "grounding", "compare", "phrases", "evidence")),
    *(
        "training.average",
        "training.confidence",
        "training.labels",
        "training.check",
        "training.shapes",
        "service.batch",
        "service.doctor",
    ),
}
# Libraries that only these modules import.
ONLY_IN = {
    "argparse": {*COMMANDS, "training.cli", "benchmarks"},
    "flask": {"service.web", "service.app", "benchmarks"},
    "werkzeug": {"service.web", "service.app", "benchmarks"},
    "gunicorn": {"service.gunicorn_config", "benchmarks"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def imports_of(module: str) -> frozenset[str]:
    """What a module imports, wherever in it: modules, where a name is one."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in full}
    return frozenset(found)


def belongs(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if belongs(module, room)), key=len)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_what_it_may(room):
    modules = [module for module in MODULES if room_of(module) == room]
    assert modules
    allowed = {room, *MAY_IMPORT[room]}
    for module in modules:
        ours = {name for name in imports_of(module) if name.split(".")[0] in PACKAGES}
        assert {name for name in ours if not any(belongs(name, one) for one in allowed)} == set(), module


def test_every_room_of_model_has_a_row():
    assert {module for module in MODULES if room_of(module) == "model"} == {"model"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_only_where_it_belongs(library):
    users = {module for module in MODULES if any(belongs(name, library) for name in imports_of(module))}
    assert {name for name in users if not any(belongs(name, room) for room in ONLY_IN[library])} == set()


def test_no_module_imports_a_command():
    users = {module for module in MODULES if imports_of(module) & COMMANDS}
    assert {module for module in users if not belongs(module, "benchmarks")} == set()


def test_only_commands_and_benchmarks_use_training_cli():
    users = {module for module in MODULES if "training.cli" in imports_of(module)}
    assert {module for module in users if not belongs(module, "benchmarks")} <= COMMANDS


def test_imports_have_no_cycle():
    TopologicalSorter({module: imports_of(module) - {module} for module in MODULES}).prepare()


def test_public_names_are_exactly_all():
    public = {name for name in vars(model) if not name.startswith("_")}
    modules = {path.stem for path in (ROOT / "model").iterdir()}
    assert public - modules == set(model.__all__) - modules
    assert model.__all__ == sorted(model.__all__)
