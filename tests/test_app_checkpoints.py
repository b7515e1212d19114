"""The service captions with its checkpoint, reloads it, and exits if it is damaged or hostile."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from conftest import TINY, draw_photo, random_network
from support.bad_inputs import encoded
from support.processes import PATH, ROOT, free_port
from test_checkpoint import DAMAGES, rewrite_manifest

from benchmarks.harness.client import Upload, get, post
from benchmarks.harness.server import Service, serving
from model import Captioner, ModelConfig, open_image
from model.checkpoint import save_checkpoint
from model.vocabulary import Vocabulary
from service.app import CANNOT_START, create_app
from service.config import ServiceConfig


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which the service does not start."""
    with pytest.raises(SystemExit) as ending:
        create_app(ServiceConfig(checkpoint=str(checkpoint)))
    assert ending.value.code == CANNOT_START != 0
    [sentence] = capsys.readouterr().err.splitlines()
    return sentence


def test_damaged_checkpoint_stops_the_service(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """test_checkpoint has every kind of damage."""
    damage, _ = DAMAGES["another attention"]
    damage(checkpoint)
    assert refused(checkpoint, capsys).startswith("The service cannot start. ")


@pytest.mark.parametrize("file", ["weights.safetensors", "config.json", "vocabulary.json", "manifest.json"])
def test_pickle_in_checkpoint_is_never_loaded(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str
) -> None:
    trace = tmp_path / "trace"
    (checkpoint / file).write_bytes(pickle.dumps(Hostile(trace)))
    if file != "manifest.json":
        rewrite_manifest(checkpoint)
    assert refused(checkpoint, capsys)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))  # it would have, if it had been run
    assert trace.exists()


def test_wrong_checksum_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = checkpoint / "manifest.json"
    text = manifest.read_text()
    digit = text.index(":", text.index("weights.safetensors")) + 4
    manifest.write_text(text[:digit] + ("0" if text[digit] != "0" else "1") + text[digit + 1 :])
    assert "damaged" in refused(checkpoint, capsys)


COMMAND = [sys.executable, "-m", "gunicorn", "-c", "service/gunicorn_config.py", "service.app:create_app()"]


def test_gunicorn_exits_on_damaged_checkpoint(checkpoint: Path) -> None:
    damage, message = DAMAGES["cut weights"]
    damage(checkpoint)
    settings = {"CAPTION_CHECKPOINT": str(checkpoint), "CAPTION_BIND": f"127.0.0.1:{free_port()}"}
    done = subprocess.run(
        COMMAND, cwd=ROOT, env={"PATH": PATH, **settings}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def served_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, config: ModelConfig, vocabulary: Vocabulary
) -> Path:
    """The checkpoint of the tiny captioner that ``service`` serves."""
    folder = tmp_path_factory.mktemp("served") / "checkpoint"
    save_checkpoint(folder, random_network(config), config, vocabulary, TINY)
    return folder


@pytest.fixture(scope="module")
def service(served_checkpoint: Path) -> Iterator[Service]:
    """Two processes, whose queues hold what the tests send."""
    with serving({"workers": 2, "checkpoint": served_checkpoint, "queue": 8, "threads": 12}) as started:
        yield started


def test_concurrent_clients_get_their_own_captions(service: Service, checkpoint: Path) -> None:
    """Eight clients at once send the same photos in different orders, so each process has several."""
    captioner = Captioner.load(checkpoint)  # weights as they are saved, like those of the service
    photos = [encoded(draw_photo(seed)) for seed in range(6)]
    expected = [captioner.caption([open_image(photo).image])[0][0] for photo in photos]
    assert len({caption.log_prob for caption in expected}) == len(expected)
    uploads = [Upload.of(photo, overlays="none") for photo in photos]

    def check(client: int) -> None:
        for number in Random(client).sample(range(6), 6):
            [caption] = json.loads(post(service.port, uploads[number]).body)["captions"]
            assert caption["caption"] == expected[number].text
            assert caption["log_prob"] == pytest.approx(expected[number].log_prob, abs=1e-3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(8)))


def test_sighup_reloads_the_checkpoint(
    service: Service, served_checkpoint: Path, captioner: Captioner
) -> None:
    assert served_name(service) == TINY.name
    info = replace(TINY, name="replaced")
    save_checkpoint(served_checkpoint, captioner.network, captioner.config, captioner.vocabulary, info)
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: served_name(service) == "replaced")
    wait_until(lambda: len(service.workers()) == 2)
    assert "The checkpoint was loaded again." in service.log.read_text()
    (served_checkpoint / "manifest.json").write_text("damaged")
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Reload failed" in service.log.read_text())
    wait_until(lambda: get(service.port, "/readyz").status == 200)
    assert served_name(service) == "replaced"


def served_name(service: Service) -> str:
    return str(json.loads(get(service.port, "/v1/model").body)["name"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
