"""The synthetic dataset of coloured shapes: its images, boxes and captions agree."""

import json

import numpy as np
import pytest
from PIL import Image

from model import OptionsError
from training import shapes
from training.data.shapes import BACKGROUNDS, COLOURS, NOISE, SHAPES, draw_world, write_world

# Words that may stand beside the things themselves.
NEUTRAL = {"a", "an", "and", "there", "is", "one", "the", "picture", "shows", "on", "background"}
NEUTRAL |= {"above", "below", "to", "left", "right", "of"}


@pytest.fixture(scope="module")
def world():
    return draw_world(200)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_world(folder, 40, size=48, seed=3)
    return folder


def test_world_is_seeded(world):
    again = draw_world(200)
    assert [scene.image.tobytes() for scene in again] == [scene.image.tobytes() for scene in world]
    assert [scene.captions for scene in again] == [scene.captions for scene in world]


def test_seed_changes_world(world):
    other = draw_world(20, seed=1)
    assert [scene.captions for scene in other] != [scene.captions for scene in world[:20]]


def test_smaller_world_is_a_prefix(world):
    assert [scene.captions for scene in draw_world(10)] == [scene.captions for scene in world[:10]]


def test_images_are_unique(world):
    assert len({scene.image.tobytes() for scene in world}) == len(world)


def test_every_shape_colour_background_and_relation_occurs(world):
    placed = [shape for scene in world for shape in scene.shapes]
    assert {shape.name for shape in placed} == set(SHAPES)
    assert {shape.colour for shape in placed} == set(COLOURS)
    assert {scene.background for scene in world} == set(BACKGROUNDS)
    assert {scene.relation for scene in world} == {None, "above", "to the left of"}


@pytest.mark.parametrize("size", [32, 64, 224])
def test_pixels_outside_boxes_are_background(size):
    for scene in draw_world(30, size=size):
        pixels = np.asarray(scene.image, dtype=int)  # (size, size, 3)
        difference = np.abs(pixels - BACKGROUNDS[scene.background]).max(axis=2)
        for shape in scene.shapes:
            left, top, width, height = shape.box
            difference[top : top + height, left : left + width] = 0
        assert difference.max() <= NOISE


def test_boxes_are_tight(world):
    for scene in world:
        pixels = np.asarray(scene.image, dtype=int)
        for shape in scene.shapes:
            left, top, width, height = shape.box
            inside = pixels[top : top + height, left : left + width]
            is_shape = (inside == COLOURS[shape.colour]).all(axis=2)
            assert is_shape.mean() > 0.3
            rows, columns = np.flatnonzero(is_shape.any(axis=1)), np.flatnonzero(is_shape.any(axis=0))
            # An edge pixel may be blended with the background; the point of a triangle is two of them.
            assert rows[0] <= 2
            assert columns[0] <= 2
            assert rows[-1] >= height - 3
            assert columns[-1] >= width - 3


def test_captions_name_exactly_the_shapes(world):
    for scene in world:
        expected = {f"{shape.colour} {shape.name}" for shape in scene.shapes}
        for caption in scene.captions:
            words = caption.split()
            named = {f"{a} {b}" for a, b in zip(words, words[1:], strict=False) if b in SHAPES}
            assert named == expected, caption


def test_captions_use_known_words_only(world):
    known = NEUTRAL | {*SHAPES, *COLOURS, *BACKGROUNDS, "small", "large"}
    assert {word for scene in world for caption in scene.captions for word in caption.split()} <= known


def test_captions_name_their_background(world):
    for scene in world:
        for caption in scene.captions:
            assert {word for word in caption.split() if word in BACKGROUNDS} <= {scene.background}


def test_relations_are_true(world):
    checked = 0
    for scene in world:
        boxes = {shape.name: shape.box for shape in scene.shapes}
        for caption in scene.captions:
            first, *second = [word for word in caption.split() if word in SHAPES]
            for phrase in ("above", "below", "left of", "right of"):
                if phrase in caption:
                    assert _holds(phrase, boxes[first], boxes[second[0]]), caption
                    checked += 1
    assert checked > 100


def _holds(relation, first, second):
    if relation in ("below", "right of"):
        first, second = second, first
    side = 1 if relation in ("above", "below") else 0
    return first[side] + first[side + 2] <= second[side]


def test_sizes_are_true(world):
    for scene in world:
        share = max(scene.shapes[0].box[2:]) / scene.image.width
        text = " ".join(scene.captions)
        assert ("small" not in text) or share <= 0.26
        assert ("large" not in text) or share >= 0.42


def test_scenes_have_five_different_captions(world):
    assert all(len(set(scene.captions)) == 5 for scene in world)


def test_splits_partition_the_world(written):
    images = json.loads((written / "captions.json").read_text())["images"]
    splits = {image["filename"]: image["split"] for image in images}
    assert len(splits) == len(images) == 40
    assert sorted(splits) == sorted(path.name for path in (written / "images").iterdir())
    assert [list(splits.values()).count(split) for split in ("train", "val", "test")] == [32, 4, 4]


def test_captions_file_is_in_karpathy_format(written):
    images = json.loads((written / "captions.json").read_text())["images"]
    sentids = [sentid for image in images for sentid in image["sentids"]]
    assert sentids == list(range(200))
    for image in images:
        assert [sentence["sentid"] for sentence in image["sentences"]] == image["sentids"]
        for sentence in image["sentences"]:
            assert sentence["tokens"] == sentence["raw"].split()
            assert sentence["imgid"] == image["imgid"]


def test_instances_are_the_boxes(written):
    instances = json.loads((written / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    boxes = {image["id"]: set() for image in instances["images"]}
    for annotation in instances["annotations"]:
        boxes[annotation["image_id"]].add((names[annotation["category_id"]], *annotation["bbox"]))
    scenes = draw_world(40, size=48, seed=3)
    assert [boxes[number] for number in range(40)] == [
        {(shape.name, *shape.box) for shape in scene.shapes} for scene in scenes
    ]
    with Image.open(written / "images" / instances["images"][7]["file_name"]) as image:
        assert image.tobytes() == scenes[7].image.tobytes()


@pytest.mark.parametrize("arguments", [(0, 64), (-1, 64), (10, 31), (10, 2000)])
def test_invalid_world_is_refused(arguments):
    with pytest.raises(OptionsError, match="must be"):
        draw_world(*arguments)


def test_command_writes_dataset(tmp_path, capsys):
    assert shapes.main(["--output", str(tmp_path / "world"), "--photographs", "10", "--size", "32"]) == 0
    assert len(list((tmp_path / "world" / "images").glob("*.png"))) == 10
    assert "10 images" in capsys.readouterr().out


def test_world_too_small_for_splits_exits_2(tmp_path, capsys):
    assert shapes.main(["--output", str(tmp_path / "world"), "--photographs", "9"]) == 2
    assert "at least 10" in capsys.readouterr().err
    assert not (tmp_path / "world").exists()


def test_ctrl_c_is_one_line_and_exits_130(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "write_world", interrupt)
    assert shapes.main(["--output", str(tmp_path / "world")]) == 130
    assert capsys.readouterr().err.strip() == "shapes: stopped"
