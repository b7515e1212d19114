"""The image is built and run as the Dockerfile says, as far as possible without a container engine."""

import fnmatch
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from dockerfile_parse import DockerfileParser
from support.processes import PATH, ROOT, ask, ask_for_caption, free_port, running, wait_for

# Everything read-only but fresh /tmp and /dev/shm; the tree is in /mnt; nobody has the rights of root.
SANDBOX = """
mount --make-rprivate /
mount --bind "$1" /mnt
mount -o remount,bind,ro /mnt
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
cd /mnt
user=$2
shift 2
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --bounding-set=-all -- "$@"
"""

EXCLUDED = {"matplotlib", "pycocoevalcap"}  # packages, only training and evaluation need them


class Instruction(NamedTuple):
    name: str
    value: str


def instructions() -> list[Instruction]:
    parsed = DockerfileParser(path=str(ROOT / "Dockerfile")).structure
    return [Instruction(each["instruction"], each["value"]) for each in parsed]


def the(name: str) -> str:
    """The value of the only instruction of this name."""
    [value] = [each.value for each in instructions() if each.name == name]
    return value


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in the("ENV").split())


def let_in() -> list[str]:
    """What the .dockerignore lets into the build."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def copy(value: str, tree: Path) -> None:
    source, target = value.split()
    assert any(fnmatch.fnmatch(source, name) for name in let_in()), source
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, tree / target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(ROOT / source, tree / target)


def command_of(value: str) -> list[str]:
    """A command in the exec form."""
    command: list[str] = json.loads(value)
    return command


def run(value: str, tree: Path, path: str, **more: str) -> None:
    command = command_of(value) if value.startswith("[") else ["sh", "-ec", value]
    done = subprocess.run(
        command, cwd=tree, env={"PATH": path, **more}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tree`` is what the image has in its working folder; in ``pip.txt`` is what would be installed."""
    folder = tmp_path_factory.mktemp("image")
    tree, tools = folder / "tree", folder / "tools"
    tree.mkdir()
    tools.mkdir()
    notes = '#!/bin/sh\necho "$@" >> "$NOTES"\nfor last; do :; done\ncat "$last" >> "$NOTES"\n'
    (tools / "pip").write_text(notes)
    (tools / "pip").chmod(0o755)
    for name in EXCLUDED:
        (tools / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not in the image')")
    variables: dict[str, str] = {}
    for name, value in instructions():
        if name == "ENV":
            variables = {**environment(), "CAPTION_BIND": f"127.0.0.1:{free_port()}"}
        elif name == "COPY":
            copy(value, tree)
        elif name == "RUN":
            run(
                value,
                tree,
                f"{tools}:{PATH}",
                NOTES=str(folder / "pip.txt"),
                PYTHONPATH=str(tools),
                **variables,
            )
    return folder


def pins(text: str) -> list[str]:
    return re.findall(r"^[\w-]+==\S+$", text, re.MULTILINE)


def in_sandbox(command: Sequence[str], tree: Path, user: str) -> list[str]:
    """The command as a container runs it, whose root is read-only."""
    return ["unshare", "--mount", "sh", "-ec", SANDBOX, "sandbox", str(tree), user, *command]


@pytest.fixture(scope="module")
def user(image: Path) -> str | None:
    """The user of the image; root without its rights, where the interpreter is in a home folder of root's; or
    None, where the machine permits no sandbox.
    """
    for number in (the("USER").split(":")[0], "0"):
        probe = in_sandbox([sys.executable, "-c", ""], image / "tree", number)
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
            return number
    return None


def contents(tree: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in sorted(tree.rglob("*"))}


@pytest.fixture(scope="module")
def container(image: Path, user: str | None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The CMD at work, and its port; in a sandbox where that can be. One process, to spare the memory."""
    tree, port = image / "tree", free_port()
    command = command_of(the("CMD"))
    variables = {**environment(), "CAPTION_BIND": f"127.0.0.1:{port}", "CAPTION_WORKERS": "1"}
    log = image / "log.txt"
    command = command if user is None else in_sandbox(command, tree, user)
    with running(command, log, variables, tree) as process:
        wait_for(port, "/readyz", process, log)
        yield process, port


def test_image_installs_only_pinned_packages(image: Path) -> None:
    notes = (image / "pip.txt").read_text()
    of_torch, of_all = re.split("^install ", notes, flags=re.MULTILINE)[1:]
    assert "--index-url https://download.pytorch.org/whl/cpu" in of_torch
    assert {pin.split("==")[0] for pin in pins(of_torch)} == {"torch", "torchvision"}
    assert set(pins(of_torch)) < set(pins(of_all)) < set(pins((ROOT / "requirements.txt").read_text()))


def test_image_excludes_only_unused_packages() -> None:
    """Of every command; the image of these tests captions without the packages."""
    code = "import sys, service.app, service.batch; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not EXCLUDED & set(done.stdout.split())


def test_container_captions_without_writing(
    image: Path, container: tuple[subprocess.Popen[bytes], int]
) -> None:
    _, port = container
    before = contents(image / "tree")
    for example in sorted((image / "tree" / "examples").glob("*.jpg"))[:2]:
        answer = ask_for_caption(port, example.read_bytes())
        assert answer.status == 200, answer.body
        assert len(json.loads(answer.body)["captions"][0]["words"]) > 3
    assert ask(port, "/examples/cat.jpg").status == 200
    assert ask(port, "/metrics").status == 200
    assert contents(image / "tree") == before


def test_health_check_detects_failing_captioner(
    container: tuple[subprocess.Popen[bytes], int],
) -> None:
    _, port = container
    check = command_of(the("HEALTHCHECK").split("CMD ")[1])
    for number, status in ((port, 0), (free_port(), 1)):
        command = [part.replace("8000", str(number)) for part in check]
        # A proxy that the environment names is not asked.
        proxy = {"PATH": PATH, "http_proxy": "http://127.0.0.1:9"}
        assert subprocess.run(command, env=proxy, stderr=subprocess.DEVNULL).returncode == status


def test_container_stops_cleanly(container: tuple[subprocess.Popen[bytes], int]) -> None:
    """The last test that asks this container for anything."""
    process, _ = container
    process.send_signal(getattr(signal, the("STOPSIGNAL")))
    assert process.wait(60) == 0
