"""Every kind of attention and decoder through Python, HTTP and batch: all give the same captions."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of_kind, draw_photo, random_network
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from model import Captioner, CheckpointInfo, DecodingOptions, ModelConfig, open_image
from model.attention import ATTENTION_KINDS
from model.checkpoint import save_checkpoint
from model.vocabulary import Vocabulary
from service import batch
from service.app import create_app
from service.config import ServiceConfig

INFO = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
WORDS = 3  # of a caption at most: images of more take long to draw
OTHERS: dict[str, dict[str, Any]] = {
    "gate off": {"gate": "off"},
    "vector gate": {"gate": "vector"},
    "gru": {"cell": "gru"},
    "grid layers": {"grid_layers": 1, "annotation_dim": 8, "attention_heads": 2},
    "word in the query": {"query": "state_and_word"},
    "joined grid": {"grid": "joined"},
}
DISTINCT = ["none", "additive", "multi_head", "sentinel", "hard"]  # each is shown in another way


@pytest.fixture(params=[*ATTENTION_KINDS, *OTHERS])
def varied(request: pytest.FixtureRequest, config: ModelConfig) -> ModelConfig:
    """The tiny configuration with one kind of attention, or of something else."""
    if request.param in OTHERS:
        return replace(config, **OTHERS[request.param])
    return config_of_kind(config, request.param)


@pytest.fixture
def saved(tmp_path: Path, varied: ModelConfig, vocabulary: Vocabulary) -> Captioner:
    """A captioner of that configuration, saved as a checkpoint."""
    network = random_network(varied)
    with torch.no_grad():
        for parameter in network.parameters():  # what half precision keeps, it keeps exactly
            parameter.copy_(parameter.half())
    save_checkpoint(tmp_path / "checkpoint", network, varied, vocabulary, INFO)
    return Captioner(network, varied, vocabulary, INFO)


@pytest.fixture
def folder(saved: Captioner, tmp_path: Path) -> Path:
    """Its checkpoint."""
    return tmp_path / "checkpoint"


@pytest.fixture
def client(folder: Path) -> FlaskClient:
    return create_app(ServiceConfig(checkpoint=str(folder))).test_client()


def photo() -> bytes:
    stream = io.BytesIO()
    draw_photo(1).save(stream, "PNG")
    return stream.getvalue()


def post(client: FlaskClient, route: str = "/v1/captions", **fields: str) -> TestResponse:
    data = {"image": (io.BytesIO(photo()), "a.png"), "max_length": str(WORDS), **fields}
    return client.post(route, data=data)


def assert_map(weights: list[list[float]], grid: dict[str, Any]) -> None:
    found = np.array(weights)
    assert found.shape == (grid["rows"], grid["columns"]) == (5, 5)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("varied", [*DISTINCT, "gate off"], indirect=True)
def test_response_has_what_the_model_computes(varied: ModelConfig, client: FlaskClient) -> None:
    response = post(client)
    assert response.status_code == 200
    [caption] = response.get_json()["captions"]
    assert caption["caption"]
    for word in caption["words"]:
        assert (word["beta"] is None) is (varied.gate == "off")
        assert ("heads" in word) is (varied.attention == "multi_head")
        assert ("sentinel" in word) is (varied.attention == "sentinel")
        assert ("chosen" in word) is (varied.attention == "hard")
        assert 0 <= word.get("sentinel", 0) <= 1
        if varied.attention == "none":
            assert word["attention"] is word["overlay"] is None
            continue
        assert word["overlay"].startswith("data:image/jpeg;base64,")
        for weights in (word["attention"], *word.get("heads", [])):
            assert_map(weights, caption["grid"])
        alpha = np.array(word["attention"])
        if "heads" in word:
            assert np.mean(word["heads"], axis=0) == pytest.approx(alpha, abs=1e-4)
        if "chosen" in word:
            assert alpha[tuple(word["chosen"])] == alpha.max()


@pytest.mark.parametrize("varied", DISTINCT, indirect=True)
def test_images_are_drawn_for_every_kind(varied: ModelConfig, client: FlaskClient) -> None:
    assert client.get("/v1/model").get_json()["attention"] == varied.attention
    [caption] = post(client, overlays="sheet").get_json()["captions"]
    assert caption["sheet"].startswith("data:image/jpeg;base64,")
    for fields, form in (({}, "PNG"), ({"format": "gif"}, "GIF")):
        response = post(client, "/v1/overlays", **fields)
        assert response.status_code == 200
        assert Image.open(io.BytesIO(response.data)).format == form
    response = post(client, "/v1/overlays", word="0")
    if varied.attention == "none":
        assert (response.status_code, response.content_type) == (400, "application/problem+json")
        assert "has no map" in json.loads(response.data)["detail"]
    else:
        assert Image.open(io.BytesIO(response.data)).size == (64, 48)


def test_python_http_and_batch_agree_after_saving(
    saved: Captioner, folder: Path, client: FlaskClient, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    output = tmp_path / "output"
    asked = [str(tmp_path / "a.png"), "--output", str(output), "--checkpoint", str(folder)]
    asked += ["--num-captions", "2", "--max-length", str(WORDS)]
    assert batch.main([*asked, "--attention", "--overlays"]) == 0
    [line] = (output / "captions.jsonl").read_text().splitlines()
    written = json.loads(line)
    answered = post(client, overlays="none", num_captions="2").get_json()
    image, options = open_image(photo()).image, DecodingOptions(num_captions=2, max_length=WORDS)
    loaded = Captioner.load(folder)
    assert loaded.config == saved.config
    [said] = loaded.caption([image], options)
    assert [said] == saved.caption([image], options)
    assert written["captions"] == answered["captions"] == [one.as_record(attention=True) for one in said]
    with Image.open(output / "overlays" / "a.png.png") as sheet, post(client, "/v1/overlays") as response:
        assert sheet.tobytes() == Image.open(io.BytesIO(response.data)).tobytes()
