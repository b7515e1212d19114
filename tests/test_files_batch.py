"""service.batch: its output, resuming after a crash, and its errors."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from model import Caption, CheckpointError, DecodingOptions, Grid, NonFiniteError, Word
from model.files import locked
from service import batch

ROOT = Path(__file__).parents[1]


class ColourCaptioner:
    """A captioner without weights; the caption is the red level of the first pixel."""

    info = SimpleNamespace(sha256="1" * 64)

    def __init__(self):
        self.seen = []

    @classmethod
    def load(cls, folder):
        return cls()

    def resolve(self, options):
        return replace(options, max_length=20)

    def caption(self, images, options=None):
        self.seen += images
        return [[self._caption(image.getpixel((0, 0))[0])] * options.num_captions for image in images]

    def _caption(self, red):
        attention = ((0.25, 0.25), (0.25, 0.25))
        grid = Grid(rows=2, columns=2, box=(0.0, 0.0, 1.0, 1.0))
        words = tuple(
            Word(word=word, log_prob=-0.5, beta=0.5, attention=attention) for word in ("red", str(red))
        )
        return Caption(text=f"red {red}", log_prob=-1.25, words=words, grid=grid, is_finished=True)


class InterruptedCaptioner(ColourCaptioner):
    """Ctrl-C arrives in the third batch."""

    def caption(self, images, options=None):
        if len(self.seen) >= 2:
            raise KeyboardInterrupt
        return super().caption(images, options)


@pytest.fixture
def captioner(monkeypatch):
    """The captioner that every run of the test loads."""
    fake = ColourCaptioner()
    monkeypatch.setattr(batch, "Captioner", SimpleNamespace(load=lambda folder: fake))
    return fake


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def photos(tmp_path):
    """Five photos, two of them with names that differ only in the suffix."""
    folder = tmp_path / "photos"
    for red, name in enumerate(("a.jpg", "a.png", "birds/b.png", "birds/far/c.PNG", "d.gif")):
        save(folder / name, red * 40)
    return folder


def save(path, red):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (red, 0, 0)).save(path)


def run(*inputs, output, options=()):
    return batch.main([*map(str, inputs), "--output", str(output), *options])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(output):
    return [record["image"] for record in lines(output / "captions.jsonl")]


def list_on_stdin(monkeypatch, *paths):
    listing = "".join(f"{path}\n" for path in paths).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listing)))


def test_record_names_photo_and_captions(captioner, photos, output):
    assert run(photos / "a.png", output=output) == 0
    [record] = lines(output / "captions.jsonl")
    assert record == {
        "image": "a.png",
        "sha256": sha256((photos / "a.png").read_bytes()).hexdigest(),
        "width": 40,
        "height": 30,
        "labels": None,
        "captions": [
            {
                "caption": "red 40",
                "log_prob": -1.25,
                "confidence": None,
                "words": [
                    {"word": "red", "log_prob": -0.5, "beta": 0.5, "support": None},
                    {"word": "40", "log_prob": -0.5, "beta": 0.5, "support": None},
                ],
                "grid": {"rows": 2, "columns": 2, "box": [0.0, 0.0, 1.0, 1.0]},
            }
        ],
    }


def test_attention_and_num_captions_options(captioner, photos, output):
    options = ["--attention", "--num-captions", "2"]
    run(photos / "a.png", output=output, options=options)
    [record] = lines(output / "captions.jsonl")
    assert len(record["captions"]) == 2
    assert record["captions"][0]["words"][0]["attention"] == [[0.25, 0.25], [0.25, 0.25]]


def test_all_decoding_options_reach_captioner(captioner, photos, output, monkeypatch):
    given = []
    monkeypatch.setattr(captioner, "caption", lambda images, options: given.append(options) or [["x"]])
    record = {"image": "a.png", "sha256": ""}
    monkeypatch.setattr("model.Photo.as_record", lambda *args, **kwargs: record)
    chosen = DecodingOptions(
        beam_size=4,
        num_captions=2,
        max_length=9,
        length_penalty=1.5,
        phrase_weight=0.5,
        allow_repeats=True,
        draw_seed=7,
    )
    options = ["--beam-size=4", "--num-captions=2", "--max-length=9", "--length-penalty=1.5"]
    options += ["--phrase-weight=0.5", "--allow-repeats", "--draw-seed=7"]
    assert run(photos / "a.png", output=output, options=options) == 0
    assert given == [chosen]


def test_folder_is_captioned_recursively_in_order(captioner, photos, output):
    save(photos / ".thumbnails/a.jpg", 9)
    (photos / "notes.txt").write_text("not an image")
    assert run(photos, output=output) == 0
    assert names(output) == ["a.jpg", "a.png", "birds/b.png", "birds/far/c.PNG", "d.gif"]


def test_overlays_mirror_input_folders(captioner, photos, output):
    run(photos, output=output, options=["--overlays"])
    drawn = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    assert drawn == [f"overlays/{name}.png" for name in names(output)]
    for path in drawn:
        Image.open(output / path).verify()


def test_output_inside_input_is_not_captioned(captioner, photos):
    for _ in range(2):
        assert run(photos, output=photos, options=["--overlays"]) == 0
    assert len(captioner.seen) == len(names(photos)) == 5


def test_bad_photos_are_listed_and_skipped(captioner, photos, output):
    (photos / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:150])
    (photos / "empty.png").touch()
    (photos / "iphone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (photos / "vanished.jpg").symlink_to("nowhere.jpg")
    assert run(photos, output=output, options=["--batch-size", "1"]) == 3
    assert len(names(output)) == 5
    failures = {failure["image"]: failure["error"] for failure in lines(output / "errors.jsonl")}
    assert failures == {
        "broken.jpg": "UndecodableImageError",
        "empty.png": "EmptyImageError",
        "iphone.heic": "UnsupportedImageError",
        "vanished.jpg": "FileNotFoundError",
    }
    assert all(failure["detail"] for failure in lines(output / "errors.jsonl"))


def test_missing_permission_is_a_failure(captioner, photos, output):
    (photos / "a.jpg").chmod(0)
    if os.access(photos / "a.jpg", os.R_OK):
        pytest.skip("root may read everything")
    (photos / "birds").chmod(0)
    assert run(photos, output=output) == 3
    (photos / "birds").chmod(0o700)
    assert [failure["image"] for failure in lines(output / "errors.jsonl")] == ["a.jpg", "birds"]


def test_name_too_long_for_overlay_fails_that_photo(captioner, photos, output):
    save(photos / f"{'x' * 249}.png", 1)
    assert run(photos, output=output, options=["--overlays"]) == 3
    assert len(names(output)) == 5


def test_failures_are_retried_and_cleared(captioner, photos, output):
    good = (photos / "a.jpg").read_bytes()
    (photos / "a.jpg").write_bytes(b"")
    assert run(photos, output=output) == 3
    (photos / "a.jpg").write_bytes(good)
    assert run(photos, output=output) == 0
    assert sorted(names(output))[0] == "a.jpg"
    assert not (output / "errors.jsonl").exists()


def test_second_run_changes_nothing(captioner, photos, output, capsys):
    run(photos, output=output)
    before = (output / "captions.jsonl").read_bytes()
    assert run(photos, output=output) == 0
    assert (output / "captions.jsonl").read_bytes() == before
    assert len(captioner.seen) == 5
    assert capsys.readouterr().out.splitlines()[-1] == "0 captioned, 5 already done, 0 failed"


@pytest.mark.parametrize("options", [["--attention"], ["--beam-size", "5"], ["--overlays"]])
def test_output_of_other_options_is_refused(captioner, photos, output, capsys, options):
    run(photos, output=output)
    before = (output / "captions.jsonl").read_bytes()
    assert run(photos, output=output, options=options) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert (output / "captions.jsonl").read_bytes() == before


def test_output_of_other_checkpoint_is_refused(captioner, photos, output, monkeypatch, capsys):
    run(photos, output=output)
    monkeypatch.setattr(ColourCaptioner, "info", SimpleNamespace(sha256="2" * 64))
    assert run(photos, output=output) == 2
    assert "another checkpoint" in capsys.readouterr().err


def test_torn_last_line_is_redone(captioner, photos, output):
    run(photos, output=output)
    whole = (output / "captions.jsonl").read_bytes()
    (output / "captions.jsonl").write_bytes(whole[:-20])
    assert run(photos, output=output) == 0
    assert (output / "captions.jsonl").read_bytes() == whole
    assert len(captioner.seen) == 6


def test_changed_photo_is_recaptioned(captioner, photos, output):
    run(photos, output=output)
    save(photos / "a.png", 200)
    assert run(photos, output=output) == 0
    [record] = [r for r in lines(output / "captions.jsonl") if r["image"] == "a.png"]
    assert record["captions"][0]["caption"] == "red 200"
    assert len(captioner.seen) == 6
    assert not list(output.rglob("*.part"))


def test_photo_that_became_invalid_loses_its_record(captioner, photos, output):
    run(photos, output=output)
    (photos / "a.png").write_bytes(b"no longer an image")
    assert run(photos, output=output) == 3
    assert "a.png" not in names(output)
    assert len(names(output)) == 4


def test_records_of_other_photos_are_kept(captioner, photos, output):
    run(photos, output=output)
    run(photos / "a.png", output=output)
    assert len(names(output)) == 5


def test_inputs_with_equal_names_lose_no_photo(captioner, tmp_path, output):
    for red, name in enumerate(("x/a.png", "y/a.png", "z/y/a.png")):
        save(tmp_path / name, red)
    inputs = [tmp_path / "x", tmp_path / "y", tmp_path / "z" / "y" / "a.png"]
    assert run(*inputs, output=output, options=["--overlays"]) == 0
    texts = {r["image"]: r["captions"][0]["caption"] for r in lines(output / "captions.jsonl")}
    assert texts == {"a.png": "red 0", "y/a.png": "red 1", "z/y/a.png": "red 2"}
    assert len(list((output / "overlays").rglob("*.png"))) == 3


def test_duplicate_input_is_captioned_once(captioner, photos, output, monkeypatch):
    monkeypatch.chdir(photos)
    assert run(".", "a.png", photos / "birds" / ".." / "a.png", "*.png", output=output) == 0
    assert len(captioner.seen) == len(names(output)) == 5


def test_glob_photos_are_named_below_the_wildcard(captioner, photos, output):
    assert run(photos / "**" / "*.png", output=output) == 0
    assert names(output) == ["a.png", "birds/b.png"]


def test_existing_file_is_not_a_glob(captioner, tmp_path, output):
    save(tmp_path / "a[1].png", 0)
    assert run(tmp_path / "a[1].png", output=output) == 0
    assert names(output) == ["a[1].png"]


def test_stdin_lists_files_and_folders(captioner, photos, output, monkeypatch):
    list_on_stdin(monkeypatch, photos / "d.gif", "", photos / "birds")
    assert run("-", output=output) == 0
    assert sorted(names(output)) == ["b.png", "d.gif", "far/c.PNG"]


def test_missing_listed_photo_fails_alone(captioner, photos, output, monkeypatch):
    list_on_stdin(monkeypatch, photos / "gone.jpg", photos / "a.jpg")
    assert run("-", output=output) == 3
    assert names(output) == ["a.jpg"]
    assert lines(output / "errors.jsonl")[0]["image"] == "gone.jpg"


def test_names_in_any_encoding_are_recorded(captioner, tmp_path, output):
    folder = tmp_path / "photos"
    save(folder / "été.png", 0)
    os.rename(folder / "été.png", os.fsencode(folder) + b"/\xe9t\xe9.png")
    save(folder / "日本.png", 0)
    assert run(folder, output=output, options=["--overlays"]) == 0
    assert sorted(names(output)) == ["日本.png", "\udce9t\udce9.png"]


def test_batch_size_is_bounded(captioner, photos, output, monkeypatch):
    sizes = []
    caption = captioner.caption
    monkeypatch.setattr(captioner, "caption", lambda i, o: sizes.append(len(i)) or caption(i, o))
    run(photos, output=output, options=["--batch-size", "2"])
    assert sizes == [2, 2, 1]


def test_ctrl_c_keeps_records_and_says_how_to_resume(captioner, photos, output, monkeypatch, capsys):
    monkeypatch.setattr(batch, "Captioner", InterruptedCaptioner)
    assert run(photos, output=output, options=["--batch-size", "1"]) == 130
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == "service.batch: 2 captioned; re-run the same command to resume"
    assert len(names(output)) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.jpg"], "nowhere.jpg"),
        (["nowhere/*.jpg"], "nowhere/*.jpg"),
        (["empty"], "No photos"),
        (["a.png", "--beam-size", "0"], "beam_size"),
        (["a.png", "--num-captions", "4"], "num_captions"),
        (["a.png", "--batch-size", "0"], "batch_size"),
        (["a.png", "--output", "a.png"], "Cannot write to the output folder a.png"),
    ],
)
def test_invalid_usage_exits_2_with_one_line(captioner, tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", 0)
    (tmp_path / "empty").mkdir()
    assert batch.main(["--output", "output", *arguments]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert message.count("\n") == 1
    assert not (tmp_path / "output" / "captions.jsonl").exists()


@pytest.mark.parametrize("arguments", [[], ["a.png"], ["a.png", "--output", "o", "--beam-size", "three"]])
def test_invalid_arguments_exit_2(arguments):
    with pytest.raises(SystemExit) as refused:
        batch.main(arguments)
    assert refused.value.code == 2


def test_bad_checkpoint_exits_2_without_output(photos, output, capsys, monkeypatch):
    def refuse(folder):
        raise CheckpointError("The checkpoint folder 'x' does not exist.")

    monkeypatch.setattr(batch, "Captioner", SimpleNamespace(load=refuse))
    assert run(photos, output=output) == 2
    assert capsys.readouterr().err == "service.batch: The checkpoint folder 'x' does not exist.\n"
    assert not (output / "captions.jsonl").exists()


@pytest.mark.parametrize("content", ['{"caption": "mine"}\n', "[" * 100_000 + "\n"])
def test_foreign_captions_file_is_left_untouched(captioner, photos, output, capsys, content):
    output.mkdir()
    (output / "captions.jsonl").write_text(content)
    assert run(photos, output=output) == 2
    assert "Line 1" in capsys.readouterr().err
    assert (output / "captions.jsonl").read_text() == content


@pytest.mark.parametrize("red_levels", [(80,), (0, 80, 160), (0, 40, 80, 120, 160)])
@pytest.mark.parametrize("batch_size", ["1", "8"])
def test_non_finite_output_fails_only_its_photos(
    captioner, photos, output, monkeypatch, red_levels, batch_size
):
    caption = captioner.caption

    def fail_on_some(images, options=None):
        if any(image.getpixel((0, 0))[0] in red_levels for image in images):
            raise NonFiniteError("The network's output is not finite.")
        return caption(images, options)

    monkeypatch.setattr(captioner, "caption", fail_on_some)
    for path in photos.rglob("*.jpg"):
        save(path.with_suffix(".bmp"), 0)  # JPEG may change the colour
        path.unlink()
    assert run(photos, output=output, options=["--batch-size", batch_size]) == 3
    failures = lines(output / "errors.jsonl")
    assert [failure["error"] for failure in failures] == ["NonFiniteError"] * len(red_levels)
    recorded = names(output) if (output / "captions.jsonl").exists() else []
    assert len(recorded) == 5 - len(red_levels)


def test_second_run_on_same_output_is_refused(captioner, photos, output, capsys):
    with locked(output):
        assert run(photos, output=output) == 2
    assert "Another run" in capsys.readouterr().err
    assert not (output / "captions.jsonl").exists()
    assert run(photos, output=output) == 0


@pytest.mark.parametrize("name", ["phrase_weight", "allow_repeats", "draw_seed", "attention", "overlays"])
def test_settings_from_before_an_option_have_its_default(captioner, photos, output, name):
    run(photos, output=output)
    path = output / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in settings.items() if key != name}))
    assert run(photos, output=output) == 0
    assert json.loads(path.read_text()) == settings
    assert len(captioner.seen) == 5


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"beam_size": 3}', "\udcff"])
def test_damaged_settings_refuse_output(captioner, photos, output, capsys, content):
    output.mkdir()
    (output / "settings.json").write_bytes(content.encode(errors="surrogateescape"))
    assert run(photos, output=output) == 2
    assert "settings.json" in capsys.readouterr().err


@pytest.mark.parametrize("is_file", [True, False])
def test_unusable_output_is_refused_before_anything_is_loaded(photos, tmp_path, monkeypatch, capsys, is_file):
    monkeypatch.setattr(batch, "Captioner", None)
    monkeypatch.setattr(batch, "find_sources", None)
    blocker = tmp_path / "file"
    blocker.touch()
    assert run(photos, output=blocker if is_file else blocker / "below") == 2
    assert "Cannot write to the output folder" in capsys.readouterr().err


SLOW_CAPTIONER = """
import sys, time
sys.path.insert(0, "tests")
import test_files_batch
from service import batch

class Slow(test_files_batch.ColourCaptioner):
    def caption(self, images, options=None):
        time.sleep(0.02)
        return super().caption(images, options)

batch.Captioner = Slow
sys.exit(batch.main())
"""


def start(photos, output):
    command = [sys.executable, "-c", SLOW_CAPTIONER, str(photos), "--output", str(output)]
    return subprocess.Popen([*command, "--overlays", "--batch-size", "3"], cwd=ROOT)


def signal_after(process, output, records, how):
    """Send ``how`` once ``records`` lines are there."""
    written = output / "captions.jsonl"
    while process.poll() is None:
        if written.exists() and written.read_bytes().count(b"\n") >= records:
            process.send_signal(how)
            break
        time.sleep(0.003)
    return process.wait()


def everything(output):
    records = sorted((output / "captions.jsonl").read_text().splitlines())
    overlays = {path.relative_to(output): path.read_bytes() for path in output.rglob("*.png")}
    return records, overlays


@pytest.mark.slow
def test_killed_runs_equal_one_clean_run(captioner, tmp_path, output):
    photos = tmp_path / "photos"
    for red in range(60):
        save(photos / f"{red % 7}/{red}.png", red)
    for records in (1, 10, 25, 40):
        assert signal_after(start(photos, output), output, records, signal.SIGKILL) == -signal.SIGKILL
    assert signal_after(start(photos, output), output, 50, signal.SIGINT) == 130
    assert run(photos, output=output, options=["--overlays"]) == 0
    clean = tmp_path / "clean"
    run(photos, output=clean, options=["--overlays"])
    assert everything(output) == everything(clean)
