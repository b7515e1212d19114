"""CategoryWords: which words and phrases of a caption name an object category."""

from pathlib import Path

import pytest
from conftest import SHARED_DATA

from model.tokenizer import tokenize
from training.data.instances import read_instances
from training.errors import DataError
from training.evaluation.object_words import SYNONYMS, CategoryWords, plurals, read_synonyms

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
def test_words_synonyms_and_plurals_match(caption, expected):
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
def test_longest_phrase_matches_at_its_last_word(caption, expected):
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
def test_ambiguous_words_do_not_match(caption):
    assert named(caption) == []


@pytest.mark.parametrize("caption", ["a hot dog", "hot dogs", "a hotdog"])
def test_hot_dog_is_not_a_dog(caption):
    assert named(caption, ("dog",)) == []


def test_baby_animal_is_not_a_person():
    assert named("a baby zebra and a baby", ("person",)) == [("person", 5)]


def test_synonyms_of_unknown_categories_do_not_match():
    assert named("a man with a puppy", ("cat",)) == []


def test_category_name_precedes_synonyms():
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
def test_english_plurals(word, plural):
    assert plurals(word) == (plural,)


@pytest.fixture
def synonyms(tmp_path: Path) -> dict[str, str]:
    """Some lines of the published list, read from a file."""
    file = tmp_path / "synonyms.txt"
    lines = ("person, man, child,  passenger", "dog, puppy", "toilet", "chair, seat", "tie, bow", "train")
    file.write_text("\n".join((*lines, "elephant", "hot dog", "dining table, desk")))
    return read_synonyms(file)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("two puppies at a desk", ["dog", "dining table"]),
        ("a hot dog", ["hot dog"]),
        ("a toilet seat beside a seat", ["toilet", "chair"]),
        ("a baby elephant and a child", ["elephant", "person"]),
        ("a passenger train beside passengers", ["train", "person"]),
        ("a train track", []),
        ("a bow tie", []),  # not listed
    ],
)
def test_listed_synonyms_follow_published_rules(synonyms, caption, expected):
    words = CategoryWords(synonyms, synonyms)
    assert [mention.category for mention in words.find(caption.split())] == expected


def test_synonyms_must_list_every_category(synonyms):
    with pytest.raises(DataError, match="no line for bus"):
        CategoryWords(("dog", "bus"), synonyms)


@pytest.mark.skipif(not (SHARED_DATA / "coco_dev").is_dir(), reason="needs ../shared/data/coco_dev")
def test_coco_captions_mostly_name_boxed_objects():
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
