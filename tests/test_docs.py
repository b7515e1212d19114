"""Commands, options and links in the documentation exist, and the Python in the README runs."""

import io
import re
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("checkpoints/*/README.md")]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def text_of(document: Path) -> str:
    """With continued lines joined."""
    return document.read_text(encoding="utf-8").replace("\\\n", " ")


@cache
def help_of(module: str) -> str:
    """In this process: a new one would load torch again for every command."""
    shown = io.StringIO()
    with redirect_stdout(shown), pytest.raises(SystemExit):
        import_module(module).main(["--help"])
    return shown.getvalue()


def test_documented_options_exist() -> None:
    missing = [
        (document.name, module, option)
        for document in DOCUMENTS
        for module, rest in re.findall(r"python -m ((?:service|training)\.\w+)([^\n`]*)", text_of(document))
        for option in re.findall(r"(?<=\s)--[a-z-]+", rest)
        if option not in help_of(module)
    ]
    assert missing == []


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    missing = [
        (document.name, target)
        for document in DOCUMENTS
        for target in re.findall(r"(?:^|`|    )make (\w+)", text_of(document), re.MULTILINE)
        if not re.search(rf"^{target}:", makefile, re.MULTILINE)
    ]
    assert missing == []


def test_relative_links_lead_to_files() -> None:
    missing = [
        (document.name, target)
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s]+)\)", text_of(document))
        if not target.startswith("http") and not (document.parent / target).exists()
    ]
    assert missing == []


def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [code for language, code in FENCE.findall(text_of(ROOT / "README.md")) if language == "python"]
    assert blocks
    monkeypatch.chdir(ROOT)
    for code in blocks:
        exec(compile(code.replace("sheet.png", str(tmp_path / "sheet.png")), "README.md", "exec"), {})
    assert (tmp_path / "sheet.png").exists()
