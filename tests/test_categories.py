"""Categories: which words name them, and what is read of an annotation file and refused."""

import json

import pytest
from conftest import SHARED_DATA, draw_photo

from model.tokenizer import tokenize
from training.data.instances import read_instances
from training.data.shapes import draw_world, write_world
from training.errors import DataError
from training.evaluation.object_words import SYNONYMS, CategoryWords, plurals

COCO = (
    "person",
    "bicycle",
    "motorcycle",
    "car",
    "bus",
    "train",
    "truck",
    "fire hydrant",
    "bench",
    "bird",
    "cat",
)
COCO += ("dog", "horse", "sheep", "cow", "bear", "zebra", "tie", "skis", "baseball bat", "baseball glove")
COCO += (
    "bottle",
    "wine glass",
    "knife",
    "orange",
    "hot dog",
    "couch",
    "potted plant",
    "dining table",
    "toilet",
)
COCO += ("mouse", "cell phone", "microwave", "oven", "scissors", "teddy bear")


def named(caption: str, categories: tuple[str, ...] = COCO) -> list[tuple[str, int]]:
    return [tuple(mention) for mention in CategoryWords(categories).find(tokenize(caption))]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man and two women watch a boy.", [("person", 1), ("person", 4), ("person", 7)]),
        ("people and children", [("person", 0), ("person", 2)]),
        ("puppies with a puppy", [("dog", 0), ("dog", 3)]),
        (
            "mice, knives, sheep, buses, benches",
            [("mouse", 0), ("knife", 1), ("sheep", 2), ("bus", 3), ("bench", 4)],
        ),
        ("a pair of skis and scissors", [("skis", 3), ("scissors", 5)]),
        ("ponies and ferries", [("horse", 0)]),
        ("cities of glass", []),
        ("a zebras stripes", [("zebra", 1)]),
    ],
)
def test_synonyms_and_plurals_name_their_category(caption, expected):
    assert named(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a hot dog on a table", [("hot dog", 2), ("dining table", 5)]),
        ("two hot dogs and a dog", [("hot dog", 2), ("dog", 5)]),
        ("a hot black dog", [("dog", 3)]),
        ("teddy bears by a bear", [("teddy bear", 1), ("bear", 4)]),
        ("a red fire hydrant", [("fire hydrant", 3)]),
        ("the hydrant", [("fire hydrant", 1)]),
        ("a cell phone, a cellphone, phones", [("cell phone", 2), ("cell phone", 4), ("cell phone", 5)]),
        ("a microwave oven and an oven", [("microwave", 2), ("oven", 5)]),
        ("a pickup truck", [("truck", 2)]),
        ("a dirt bike passes a bike", [("motorcycle", 2), ("bicycle", 5)]),
        ("a baby zebra", [("zebra", 2)]),
        ("a baby and adult dogs", [("person", 1), ("dog", 4)]),
        ("a baby goes hot", [("person", 1)]),
        ("wine glasses", [("wine glass", 1)]),
    ],
)
def test_longest_phrase_counts_at_its_last_word(caption, expected):
    assert named(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "a train station",
        "on the bus stop",
        "jet skis",
        "a bat",
        "a glass",
        "a glove",
        "a plant",
        "a crowd",
        "the hot",
    ],
)
def test_ambiguous_words_name_nothing(caption):
    assert named(caption) == []


@pytest.mark.parametrize("caption", ["a hot dog", "hot dogs", "a hotdog"])
def test_hot_dog_is_not_a_dog(caption):
    assert named(caption, ("dog",)) == []


def test_baby_animal_is_not_a_person():
    assert named("a baby zebra and a baby", ("person",)) == [("person", 5)]


def test_synonyms_of_absent_categories_name_nothing():
    assert named("a man with a puppy", ("cat",)) == []


def test_category_name_comes_before_synonyms():
    mentions = named("crosses, a circle and a woman, a man", ("circle", "cross", "woman", "person"))
    assert mentions == [("cross", 0), ("circle", 2), ("woman", 5), ("person", 7)]


def test_category_names_are_tokenized():
    assert named("a t-shirt and Stop Signs", ("T-shirt", "stop_sign")) == [("T-shirt", 1), ("stop_sign", 4)]


def test_synonyms_are_unique_and_tokenized():
    listed = [word for words in SYNONYMS.values() for word in words.split(", ")]
    assert len(listed) == len(set(listed))
    assert not set(listed) & set(SYNONYMS)
    assert all(" ".join(tokenize(word)) == word for word in listed)


@pytest.mark.parametrize(
    ("word", "plural"),
    [
        ("dog", "dogs"),
        ("box", "boxes"),
        ("pony", "ponies"),
        ("boy", "boys"),
        ("cross", "crosses"),
        ("ox", "oxen"),
    ],
)
def test_plurals_follow_english(word, plural):
    assert plurals(word) == (plural,)


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


def test_boxes_are_clipped_fractions_of_annotated_size(annotated):
    found = read(annotated)
    assert found.categories == ("dog", "cat")
    [photo] = found.photos
    assert photo.path.name == "1.png"
    assert list(photo.boxes) == ["dog"]
    assert photo.boxes["dog"] == [
        pytest.approx((0.1, 0.25, 0.6, 0.75)),
        pytest.approx((0.9, 0.875, 1, 1)),
    ]


def test_captions_in_instances_file_are_references(annotated):
    [photo] = read(annotated).photos
    assert photo.captions == (("a", "dogs", "dog"),)
    del annotated[0]["captions"]
    [photo] = read(annotated).photos
    assert photo.captions == ()


def test_karpathy_references_match_by_file_name(tmp_path):
    write_world(tmp_path, 10, size=32)
    found = read_instances(tmp_path / "instances.json", tmp_path / "images", tmp_path / "captions.json")
    expected = [tuple(tuple(tokenize(text)) for text in scene.captions) for scene in draw_world(10, size=32)]
    assert [photo.captions for photo in found.photos] == expected


def test_only_photos_with_boxes_need_to_exist(annotated, tmp_path):
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
        ({"annotations": annotation(image_id=3)}, "photo 3"),
        ({"annotations": annotation(category_id=8)}, "category 8"),
        ({"captions": [{"image_id": 5, "caption": "a dog"}]}, "photo 5"),
        ({"annotations": annotation(bbox=[10, 20, 0, 40])}, "[10, 20, 0, 40] has no area"),
        ({"annotations": annotation(bbox=[10, 20, 50, -1])}, "1.png"),
        ({"annotations": annotation(bbox=[-60, 20, 50, 40])}, "no area on the 100 x 80 pixels"),
        ({"annotations": annotation(bbox=[float("nan"), 20, 50, 40])}, "no area"),
        ({"annotations": annotation(bbox=[10, 20, 50])}, "is no COCO instances file"),
        ({"annotations": []}, "has no boxes"),
        ({"annotations": None}, "is no COCO instances file"),
        ({"images": [{"id": 1, "file_name": "9.png", "width": 9, "height": 9}], "captions": []}, "no area"),
        ({"images": [{"id": 1, "file_name": "1.png"}], "captions": []}, "'width'"),
        ({"categories": [{"id": 7}]}, "'name'"),
        ({"captions": [{"image_id": 1}]}, "'caption'"),
    ],
)
def test_invalid_annotation_is_named(annotated, changes, named):
    with pytest.raises(DataError) as caught:
        read(annotated, **changes)
    message = str(caught.value)
    assert named in message
    assert "instances.json" in message
    assert "\n" not in message


def test_missing_annotated_photo_is_named(annotated):
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


@pytest.mark.skipif(not (SHARED_DATA / "coco_dev").is_dir(), reason="needs ../shared/data/coco_dev")
def test_most_coco_captions_name_an_annotated_object():
    folder = SHARED_DATA / "coco_dev"
    found = read_instances(folder / "instances.json", folder / "images", folder / "captions.json")
    assert len(found.categories) == 80
    names = CategoryWords(found.categories)
    mentions = [
        (mention.category, photo)
        for photo in found.photos
        for caption in photo.captions
        for mention in names.find(caption)
    ]
    present = sum(category in photo.boxes for category, photo in mentions)
    assert len(mentions) > 5 * len(found.photos)
    assert present / len(mentions) > 0.85
