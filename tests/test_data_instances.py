"""read_instances: boxes and references of a COCO instances file, and what is refused."""

import json

import pytest
from conftest import draw_photo

from model.tokenizer import tokenize
from training.data.instances import read_instances
from training.data.shapes import draw_world, write_world
from training.errors import DataError


@pytest.fixture
def annotated(tmp_path):
    """A file of two photos, the first twice as large in the file as on disk, and a captions list."""
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2):
        draw_photo(number, (50, 40)).save(images / f"{number}.png")
    data = {
        "images": [
            {"id": 1, "file_name": "1.png", "width": 100, "height": 80},
            {"id": 2, "file_name": "2.png", "width": 50, "height": 40},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [10, 20, 50, 40]},
            {"image_id": 1, "category_id": 7, "bbox": [90, 70, 20.5, 10], "iscrowd": 1},
        ],
        "captions": [
            {"image_id": 1, "caption": "A dog's dog."},
            {"image_id": 2, "caption": "A cat."},
            {"image_id": 1, "caption": "!"},
        ],
    }
    return data, tmp_path


def read(annotated, **changes):
    data, folder = annotated
    (folder / "instances.json").write_text(json.dumps(data | changes))
    return read_instances(folder / "instances.json", folder / "images")


def test_boxes_are_clipped_fractions_of_the_annotated_size(annotated):
    found = read(annotated)
    assert found.categories == ("dog", "cat")
    [photo] = found.photos
    assert photo.path.name == "1.png"
    assert list(photo.boxes) == ["dog"]
    assert photo.boxes["dog"] == [
        pytest.approx((0.1, 0.25, 0.6, 0.75)),
        pytest.approx((0.9, 0.875, 1, 1)),
    ]


def test_captions_of_the_instances_file_are_references(annotated):
    [photo] = read(annotated).photos
    assert photo.captions == (("a", "dogs", "dog"),)
    del annotated[0]["captions"]
    [photo] = read(annotated).photos
    assert photo.captions == ()


def test_references_are_matched_by_file_name(tmp_path):
    write_world(tmp_path, 10, size=32)
    found = read_instances(tmp_path / "instances.json", tmp_path / "images", tmp_path / "captions.json")
    expected = [tuple(tuple(tokenize(text)) for text in scene.captions) for scene in draw_world(10, size=32)]
    assert [photo.captions for photo in found.photos] == expected


def test_only_photos_with_boxes_need_exist(annotated, tmp_path):
    read(annotated)
    listed = [
        {"filename": name, "split": "test", "sentences": [{"raw": "a cat"}]} for name in ("1.png", "gone.png")
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"images": listed}))
    found = read_instances(tmp_path / "instances.json", tmp_path / "images", tmp_path / "captions.json")
    assert [photo.captions for photo in found.photos] == [(("a", "cat"),)]


def annotation(**changes):
    return [{"image_id": 1, "category_id": 7, "bbox": [10, 20, 50, 40]} | changes]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"annotations": annotation(image_id=3)}, "image 3"),
        ({"annotations": annotation(category_id=8)}, "category 8"),
        ({"captions": [{"image_id": 5, "caption": "a dog"}]}, "image 5"),
        ({"annotations": annotation(bbox=[10, 20, 0, 40])}, "[10, 20, 0, 40] has no area"),
        ({"annotations": annotation(bbox=[10, 20, 50, -1])}, "1.png"),
        ({"annotations": annotation(bbox=[-60, 20, 50, 40])}, "no area on the 100 x 80 pixels"),
        ({"annotations": annotation(bbox=[float("nan"), 20, 50, 40])}, "no area"),
        ({"annotations": annotation(bbox=[10, 20, 50])}, "is not a COCO instances file"),
        ({"annotations": []}, "has no boxes"),
        ({"annotations": None}, "is not a COCO instances file"),
        ({"images": [{"id": 1, "file_name": "9.png", "width": 9, "height": 9}], "captions": []}, "no area"),
        ({"images": [{"id": 1, "file_name": "1.png"}], "captions": []}, "'width'"),
        ({"annotations": annotation(bbox=[10**400, 20, 50, 40])}, "OverflowError"),
        ({"categories": [{"id": 7}]}, "'name'"),
        ({"captions": [{"image_id": 1}]}, "'caption'"),
    ],
)
def test_malformed_entry_is_named(annotated, changes, named):
    with pytest.raises(DataError) as caught:
        read(annotated, **changes)
    message = str(caught.value)
    assert named in message
    assert "instances.json" in message
    assert "\n" not in message


def test_missing_photo_is_named(annotated):
    (annotated[1] / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 photos .* do not exist, .*1\.png first"):
        read(annotated)


def test_captions_of_other_photos_are_refused(annotated, tmp_path):
    read(annotated)
    sentences = [{"raw": "a cat"}]
    listed = {"images": [{"filename": "2.png", "split": "test", "sentences": sentences}]}
    (tmp_path / "captions.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match="no captions of the photos with boxes"):
        read_instances(tmp_path / "instances.json", tmp_path / "images", tmp_path / "captions.json")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 1, column 2 is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "JSON cannot be read"),
        ("[]", "is not a COCO instances file"),
        ("\xff", "is not UTF-8 text"),
    ],
)
def test_file_that_is_not_coco_json_is_refused(tmp_path, text, named):
    path = tmp_path / "instances.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"instances\.json") as caught:
        read_instances(path, tmp_path)
    assert named in str(caught.value)
