"""training.evaluate: its JSON, its options and its errors."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import pytest

from model import Caption, Captioner, DecodingOptions, Grid, Word
from model.tokenizer import tokenize
from training import confidence, evaluate
from training.data.dataset import load_photos
from training.data.shapes import SHAPES, draw_world, write_world
from training.evaluation.evaluator import Evaluation
from training.evaluation.metrics import CorpusScores

SCORES = {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 40, size=32)
    return folder


@pytest.fixture(autouse=True)
def without_java(tmp_path, monkeypatch):
    """METEOR takes seconds; the tests that are about Java bring their own."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def command(world: Path, checkpoint: Path, *more: str) -> list[str]:
    data = ["--captions", str(world / "captions.json"), "--images", str(world / "images")]
    return ["--checkpoint", str(checkpoint), *data, "--device", "cpu", *more]


def test_prints_one_json_object(world, checkpoint, capsys):
    assert evaluate.main(command(world, checkpoint, "--split", "test")) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["images"] == 4
    assert scores["beam_size"] == 3
    assert scores["split"] == "test"
    assert set(scores) >= {*SCORES, "intervals", "distinct_captions"}
    assert set(scores["intervals"]) == SCORES
    for name in SCORES:
        low, high = scores["intervals"][name]
        assert 0 <= low <= high
        assert 0 <= scores[name] <= (1000 if name == "cider" else 100)
    assert 1 <= scores["distinct_captions"] <= 4


def test_scores_name_their_checkpoint(world, checkpoint, capsys):
    evaluate.main(command(world, checkpoint, "--split", "test"))
    assert json.loads(capsys.readouterr().out)["checkpoint_sha256"] == Captioner.load(checkpoint).info.sha256


@pytest.mark.parametrize(("split", "last_digits"), [("val", {8}), ("test", {9}), ("train", set(range(8)))])
def test_only_photos_of_the_split_are_captioned(world, checkpoint, capsys, monkeypatch, split, last_digits):
    shown = []
    caption = Captioner.caption

    def watch(self, images, options=None):
        shown.extend(image.tobytes() for image in images)
        return caption(self, images, options)

    monkeypatch.setattr(Captioner, "caption", watch)
    assert evaluate.main(command(world, checkpoint, "--split", split)) == 0
    scenes = draw_world(40, size=32)
    assert shown == [scene.image.tobytes() for n, scene in enumerate(scenes) if n % 10 in last_digits]
    assert json.loads(capsys.readouterr().out)["images"] == len(shown)


def test_scores_use_all_references(world, checkpoint, capsys, monkeypatch):
    scenes = [scene for number, scene in enumerate(draw_world(40, size=32)) if number % 10 == 9]
    said = [scene.captions[number % 5] for number, scene in enumerate(scenes)]
    texts = iter(said)
    grid = Grid(rows=1, columns=2, box=(0.0, 0.0, 1.0, 1.0))

    def recite(self, images, options=None):
        captions = []
        for _ in images:
            text = next(texts)
            words = tuple(
                Word(word=word, log_prob=-1.0, beta=0.5, attention=((0.5, 0.5),)) for word in text.split()
            )
            captions.append([Caption(text=text, log_prob=-9.0, words=words, grid=grid, is_finished=True)])
        return captions

    monkeypatch.setattr(Captioner, "caption", recite)
    assert evaluate.main(command(world, checkpoint, "--split", "test")) == 0
    scores = json.loads(capsys.readouterr().out)
    expected = CorpusScores.of(said, [list(scene.captions) for scene in scenes]).summary()
    assert scores["bleu_4"] == 100.0
    assert {name: scores[name] for name in expected} == expected


def test_evaluation_is_deterministic(world, checkpoint, capsys):
    printed = []
    for _ in range(2):
        evaluate.main(command(world, checkpoint, "--split", "test"))
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_scores_are_saved_only_on_request(world, checkpoint, capsys):
    before = Captioner.load(checkpoint).info
    assert evaluate.main(command(world, checkpoint, "--split", "test")) == 0
    assert Captioner.load(checkpoint).info.scores == {}
    capsys.readouterr()
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--save")) == 0
    after = Captioner.load(checkpoint).info
    assert after.scores == json.loads(capsys.readouterr().out)
    assert after.sha256 == before.sha256


def test_unknown_split_exits_2(world, checkpoint, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate.main(command(world, checkpoint, "--split", "testing"))
    assert caught.value.code == 2
    assert "'testing'" in capsys.readouterr().err.splitlines()[-1]


def test_every_decoding_option_is_used_and_recorded(world, checkpoint, capsys, monkeypatch):
    used = []
    caption = Captioner.caption

    def watch(self, images, options=None):
        used.append(options)
        return caption(self, images, options)

    monkeypatch.setattr(Captioner, "caption", watch)
    chosen = DecodingOptions(
        beam_size=2,
        num_captions=2,
        max_length=4,
        length_penalty=0.25,
        phrase_weight=0.5,
        allow_repeats=True,
        draw_seed=3,
    )
    numbers = {name: value for name, value in asdict(chosen).items() if name != "allow_repeats"}
    options = [
        part for name, value in numbers.items() for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--allow-repeats", *options)) == 0
    scores = json.loads(capsys.readouterr().out)
    assert used == [chosen]
    assert {name: scores[name] for name in asdict(chosen) if name != "num_captions"} == {
        name: value for name, value in asdict(chosen).items() if name != "num_captions"
    }


def test_default_max_length_is_that_of_the_checkpoint(world, checkpoint, capsys):
    evaluate.main(command(world, checkpoint, "--split", "test"))
    recorded = json.loads(capsys.readouterr().out)["max_length"]
    assert recorded == Captioner.load(checkpoint).config.caption_length


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--split", "restval"], "'restval'"),
        (["--device", "abacus"], "'abacus'"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--captions", "nowhere.json"], "nowhere.json"),
        (["--images", "nowhere"], "nowhere"),
        (["--beam-size", "11"], "beam_size is 11"),
        (["--write-captions", "nowhere/said.jsonl", "--captions", "none.json"], "nowhere/said.jsonl"),
        (["--write-captions", ".", "--captions", "none.json"], "--write-captions is .;"),
        (["--checkpoint", "nowhere", "--captions", "none.json"], "nowhere"),  # weights before photos
        (["--synonyms", __file__, "--checkpoint", "nowhere"], "--synonyms needs --instances"),
        (["--instances", "nowhere.json"], "nowhere.json"),
        (["--reliability", "nowhere/a.png", "--captions", "none.json"], "nowhere/a.png"),
        (["--reliability", "a.png", "--captions", "none.json"], "needs a captioner with confidence"),
    ],
)
def test_user_error_exits_2_with_one_line(world, checkpoint, capsys, more, named):
    assert evaluate.main(command(world, checkpoint, *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("evaluate: ")
    assert named in line


def test_caption_records_hold_scores(world, checkpoint, capsys, tmp_path):
    path = tmp_path / "said.jsonl"
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--write-captions", str(path))) == 0
    scores = json.loads(capsys.readouterr().out)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) == scores["images"]
    scenes = [scene for number, scene in enumerate(draw_world(40, size=32)) if number % 10 == 9]
    for record, scene in zip(records, scenes, strict=True):
        data = (world / "images" / record["image"]).read_bytes()
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        assert (record["width"], record["height"]) == (32, 32)
        assert record["references"] == [" ".join(tokenize(text)) for text in scene.captions]
        [caption] = record["captions"]
        assert set(caption) >= {"caption", "log_prob", "words", "grid"}
        assert "attention" not in caption["words"][0]
    assert fmean(record["cider"] for record in records) == pytest.approx(scores["cider"], abs=0.01)
    again = CorpusScores.of(
        [record["captions"][0]["caption"] for record in records], [record["references"] for record in records]
    ).summary()
    assert {name: scores[name] for name in again} == again


def test_breakdown_is_optional_and_covers_all_photos(world, checkpoint, capsys):
    evaluate.main(command(world, checkpoint, "--split", "train"))
    plain = json.loads(capsys.readouterr().out)
    evaluate.main(command(world, checkpoint, "--split", "train", "--breakdown"))
    found = json.loads(capsys.readouterr().out)
    for groups in (found.pop("by_length"), found.pop("by_category")):
        assert sum(group["photographs"] for group in groups.values()) == found["images"]
    assert found == plain


def test_chair_is_added_with_instances(world, checkpoint, capsys, monkeypatch, tmp_path):
    grid = Grid(rows=1, columns=2, box=(0.0, 0.0, 1.0, 1.0))
    circle = Caption(text="a round circle", log_prob=-9.0, words=(), grid=grid, is_finished=True)
    monkeypatch.setattr(Captioner, "caption", lambda self, images, options: [[circle] for _ in images])
    shown = [{shape.name for shape in scene.shapes} for scene in draw_world(40, size=32)[9::10]]
    absent = sum("circle" not in names for names in shown)
    synonyms = tmp_path / "synonyms.txt"
    synonyms.write_text(
        "\n".join(f"{name}, {name} shape" for name in SHAPES).replace("circle,", "circle, round,")
    )
    more = ["--split", "test", "--instances", str(world / "instances.json")]
    for words, options in ((4, ()), (8, ("--synonyms", str(synonyms)))):
        assert evaluate.main(command(world, checkpoint, *more, *options)) == 0
        found = json.loads(capsys.readouterr().out)["chair"]
        assert (found["photographs"], found["words"], found["absent"]) == (4, words, absent * words // 4)


def test_confidence_is_scored_where_there_is_one(world, checkpoint, capsys, monkeypatch, tmp_path):
    plot = tmp_path / "reliability.png"
    assert evaluate.main(command(world, checkpoint, "--split", "test")) == 0
    assert "confidence" not in json.loads(capsys.readouterr().out)
    confident = tmp_path / "confident"
    data = command(world, checkpoint, "--split", "train", "--output", str(confident))
    assert confidence.main(data) == 0
    capsys.readouterr()
    more = ["--instances", str(world / "instances.json"), "--reliability", str(plot)]
    assert evaluate.main(command(world, confident, "--split", "train", *more)) == 0
    scores = json.loads(capsys.readouterr().out)
    found = scores["confidence"]
    assert (found["photographs"], list(found["risk_coverage"])) == (32, ["100", "90", "80", "70", "60", "50"])
    assert found["risk_coverage"]["100"]["chair_i"] == scores["chair"]["chair_i"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_java_failure_keeps_other_scores(world, checkpoint, capsys, without_java):
    java = without_java / "java"
    java.write_text("#!/bin/sh\nexit 7\n")
    java.chmod(0o755)
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--save")) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert set(scores) >= SCORES
    assert not {"meteor", "spice"} & {*scores}
    assert Captioner.load(checkpoint).info.scores == scores
    skipped = [line.split(": ")[1] for line in err.splitlines() if line.startswith("evaluate: ")]
    assert skipped == ["METEOR skipped", "SPICE skipped"]
    assert "Traceback" not in err


def test_java_scores_are_added(world, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("training.evaluation.evaluator.java_score", lambda name, *_: float(len(name)))
    evaluate.main(command(world, checkpoint, "--split", "test", "--save"))
    scores = json.loads(capsys.readouterr().out)
    assert (scores["meteor"], scores["spice"]) == (6, 5)
    assert Captioner.load(checkpoint).info.scores == scores


def test_scores_survive_interrupting_java(world, checkpoint, capsys, monkeypatch):
    saved = []

    def interrupt(*_):
        saved.append(Captioner.load(checkpoint).info.scores)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.evaluation.evaluator.java_score", interrupt)
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--save")) == 130
    assert [json.loads(capsys.readouterr().out)] == saved
    assert saved[0]["cider"] >= 0


def test_validation_does_not_run_java(world, checkpoint, monkeypatch):
    monkeypatch.setattr("training.evaluation.evaluator.java_score", None)
    photos = load_photos([(world / "captions.json", world / "images")], splits=("val",))
    scores = Evaluation.of(Captioner.load(checkpoint), photos, DecodingOptions()).scores()
    assert "meteor" not in scores
    assert scores["faults"].keys() >= {"repeated_bigram", "unfinished"}
