"""What the documents tell people to type exists, and the Python they show runs."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
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
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_have_the_options_they_are_shown_with(document: Path) -> None:
    for module, rest in re.findall(r"python -m ((?:service|training)\.\w+)([^\n`]*)", text_of(document)):
        options = re.findall(r"(?<=\s)--[a-z-]+", rest)
        missing = [option for option in options if option not in help_of(module)]
        assert missing == [], module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`|    )make (\w+)", text_of(document), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", text_of(document)):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_the_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [code for language, code in FENCE.findall(text_of(ROOT / "README.md")) if language == "python"]
    assert blocks
    monkeypatch.chdir(ROOT)
    for code in blocks:
        exec(compile(code.replace("sheet.png", str(tmp_path / "sheet.png")), "README.md", "exec"), {})
    assert (tmp_path / "sheet.png").exists()
