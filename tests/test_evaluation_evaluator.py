"""Evaluation: one JSON object, each photo once, and numbers that say how attention behaved."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from model import Caption, Captioner, DecodingOptions, Grid, Word
from model.tokenizer import tokenize
from training.data.dataset import load_photos
from training.data.shapes import draw_world, write_world
from training.evaluation import evaluator as evaluate
from training.evaluation import java_metrics
from training.evaluation.evaluator import describe_attention, evaluate_captioner, is_constant
from training.evaluation.java_metrics import JavaScore
from training.evaluation.metrics import Tally

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


def test_beam_size_is_used_and_recorded(world, checkpoint, capsys, monkeypatch):
    used = []
    caption = Captioner.caption

    def watch(self, images, options=None):
        used.append(options.beam_size)
        return caption(self, images, options)

    monkeypatch.setattr(Captioner, "caption", watch)
    evaluate.main(command(world, checkpoint, "--split", "test", "--beam-size", "1"))
    assert json.loads(capsys.readouterr().out)["beam_size"] == 1
    assert used == [1]


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
    expected = Tally.of(said, [list(scene.captions) for scene in scenes]).scores()
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


def test_unknown_device_exits_2(world, checkpoint, capsys):
    assert evaluate.main(command(world, checkpoint, "--device", "abacus")) == 2
    assert "'abacus'" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--split", "restval"], "'restval'"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--captions", "nowhere.json"], "nowhere.json"),
        (["--images", "nowhere"], "nowhere"),
        (["--beam-size", "11"], "beam_size is 11"),
        (["--beam-size", "0"], "beam_size is 0"),
        (["--length-penalty", "2.5"], "length_penalty is 2.5"),
        (["--write-captions", "nowhere/said.jsonl"], "nowhere/said.jsonl"),
    ],
)
def test_user_error_exits_2_with_one_line(world, checkpoint, capsys, more, named):
    assert evaluate.main(command(world, checkpoint, *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("evaluate: ")
    assert named in line


def test_scores_record_decoding_options(world, checkpoint, capsys):
    evaluate.main(command(world, checkpoint, "--split", "test", "--length-penalty", "0.25"))
    scores = json.loads(capsys.readouterr().out)
    assert (scores["beam_size"], scores["length_penalty"]) == (3, 0.25)
    captioner = Captioner.load(checkpoint)
    assert scores["max_length"] == captioner.resolve(DecodingOptions()).max_length > 0


def test_length_penalty_is_used(world, checkpoint, monkeypatch):
    used = []
    caption = Captioner.caption

    def watch(self, images, options=None):
        used.append(options.length_penalty)
        return caption(self, images, options)

    monkeypatch.setattr(Captioner, "caption", watch)
    evaluate.main(command(world, checkpoint, "--split", "test", "--length-penalty", "1.5"))
    assert used == [1.5]


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
    again = Tally.of(
        [record["captions"][0]["caption"] for record in records], [record["references"] for record in records]
    ).scores()
    assert {name: scores[name] for name in again} == again


def test_breakdown_is_optional_and_covers_all_photos(world, checkpoint, capsys):
    evaluate.main(command(world, checkpoint, "--split", "train"))
    plain = json.loads(capsys.readouterr().out)
    evaluate.main(command(world, checkpoint, "--split", "train", "--breakdown"))
    found = json.loads(capsys.readouterr().out)
    for groups in (found.pop("by_length"), found.pop("by_category")):
        assert sum(group["photographs"] for group in groups.values()) == found["images"]
    assert found == plain


def write_java(folder: Path, program: str) -> None:
    (folder / "java").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "java").chmod(0o755)


@pytest.mark.parametrize("program", [None, "exit 7", "exec /bin/sleep 600", "echo nonsense"])
def test_java_failure_keeps_other_scores(world, checkpoint, capsys, monkeypatch, without_java, program):
    monkeypatch.setattr(java_metrics, "SECONDS_TO_START", 1.0)
    if program:
        write_java(without_java, program)
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--save")) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert set(scores) >= SCORES
    assert not {"meteor", "spice"} & {*scores, *scores["intervals"]}
    assert Captioner.load(checkpoint).info.scores == scores
    said = [line for line in err.splitlines() if "is skipped" in line]
    assert [line.split(" is ")[0] for line in said] == ["evaluate: METEOR", "evaluate: SPICE"]
    assert "Traceback" not in err


def test_java_scores_are_added(world, checkpoint, capsys, monkeypatch):
    found = {"meteor": lambda *_: JavaScore(22.5, [21.0, 24.0])}
    monkeypatch.setattr(evaluate, "JAVA_METRICS", found)
    evaluate.main(command(world, checkpoint, "--split", "test", "--save"))
    scores = json.loads(capsys.readouterr().out)
    assert (scores["meteor"], scores["intervals"]["meteor"]) == (22.5, [21.0, 24.0])
    assert Captioner.load(checkpoint).info.scores == scores


def test_scores_survive_interrupting_java(world, checkpoint, capsys, monkeypatch):
    saved = []

    def interrupt(*_):
        saved.append(Captioner.load(checkpoint).info.scores)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "JAVA_METRICS", {"meteor": interrupt})
    assert evaluate.main(command(world, checkpoint, "--split", "test", "--save")) == 130
    assert [json.loads(capsys.readouterr().out)] == saved
    assert saved[0]["cider"] >= 0


def test_validation_does_not_run_java(world, checkpoint, monkeypatch):
    monkeypatch.setattr(evaluate, "JAVA_METRICS", None)
    photos = load_photos([(world / "captions.json", world / "images")], splits=("val",))
    scores = evaluate_captioner(Captioner.load(checkpoint), photos, DecodingOptions())
    assert "meteor" not in scores
    assert scores["faults"].keys() >= {"repeated_bigram", "unfinished"}


def caption_with(*maps: tuple[tuple[float, ...], ...]) -> Caption:
    words = tuple(Word(word="dog", log_prob=-1.0, beta=0.5, attention=attention) for attention in maps)
    grid = Grid(rows=len(maps[0]), columns=len(maps[0][0]), box=(0.0, 0.0, 1.0, 1.0))
    return Caption(text="dog " * len(maps), log_prob=-1.0, words=words, grid=grid, is_finished=True)


UNIFORM = ((0.25, 0.25), (0.25, 0.25))
ONE_HOT = [((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (1.0, 0.0)), ((0.0, 1.0), (0.0, 0.0))]


def test_uniform_maps_have_maximal_entropy():
    found = describe_attention([caption_with(UNIFORM, UNIFORM, UNIFORM)])
    assert found == {"entropy": pytest.approx(1), "step_distance": 0, "uniform_distance": 0}


def test_moving_one_hot_maps_have_no_entropy_or_overlap():
    found = describe_attention([caption_with(*ONE_HOT)])
    assert found == {"entropy": 0, "step_distance": 1, "uniform_distance": 0.75}


def test_attention_stats_without_maps_are_empty():
    words = (Word(word="dog", log_prob=-1.0, beta=None, attention=None),)
    caption = replace(caption_with(UNIFORM), words=words)
    assert describe_attention([caption]) is None
    assert not is_constant(None)


def test_nearly_equal_maps_are_constant():
    nearly = ((0.251, 0.249), (0.25, 0.25))
    assert is_constant(describe_attention([caption_with(UNIFORM, nearly, UNIFORM)]))
    assert not is_constant(describe_attention([caption_with(*ONE_HOT)]))


def test_attention_stats_are_means_over_words_and_steps():
    half = ((0.5, 0.5), (0.0, 0.0))
    found = describe_attention([caption_with(UNIFORM, half), caption_with(ONE_HOT[0])])
    assert found["entropy"] == pytest.approx((1 + math.log(2) / math.log(4) + 0) / 3, abs=1e-4)
    assert found["step_distance"] == pytest.approx(0.5, abs=1e-4)


def test_attention_steps_do_not_cross_captions():
    found = describe_attention([caption_with(ONE_HOT[0]), caption_with(ONE_HOT[1])])
    assert found["step_distance"] == 0


def test_attention_stats_of_one_cell():
    found = describe_attention([caption_with(((1.0,),), ((1.0,),))])
    assert found["step_distance"] == 0
