"""Captions files: every form says the same, nothing is lost in silence, and splits stay what they are."""

import csv
import json
import random
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from conftest import draw_photo

from model import CaptioningError, OptionsError
from model.tokenizer import tokenize
from training.data.caption_files import (
    CaptionedPhoto,
    list_photos,
    list_sets,
    read_photos,
    split_by_name,
    with_captions,
)
from training.errors import DataError

# Captions with everything that a form might trip over, the same in all of them.
CONTENT = {
    "a.jpg": ["A dog runs .", 'a "small", brown dog', "the dog is left of a cat"],
    "folder/b 2.jpg": ["Ein Mädchen läuft über Öl.", "a#1 dog; it is 3\u20444 asleep"],
    "ζώο.png": ["ένας σκύλος τρέχει", "一只 狗 在 跑", "собака бежит"],
    "d.jpg": ["a dog\u2028runs\x85 fast"],  # characters at which str.splitlines would cut
}


def as_karpathy(content, split="train"):
    entries = [
        {"filename": name, "split": split, "sentences": [{"raw": caption} for caption in captions]}
        for name, captions in content.items()
    ]
    return json.dumps({"images": entries})


def as_coco(content):
    ids = {name: 7 * number for number, name in enumerate(content)}
    annotations = [
        {"id": number, "image_id": ids[name], "caption": caption}
        for number, (name, caption) in enumerate(rows_of(content))
    ]
    images = [{"id": identity, "file_name": name} for name, identity in ids.items()]
    return json.dumps({"annotations": annotations, "images": images}, ensure_ascii=False, indent=2)


def as_tokens(content):
    numbered = [(name, n, text) for name, texts in content.items() for n, text in enumerate(texts)]
    return "".join(f"{name}#{number}\t{caption}\n" for name, number, caption in numbered)


def as_csv(content, columns=("image", "caption"), **same):
    written = StringIO()
    writer = csv.DictWriter(written, columns)
    writer.writeheader()
    writer.writerows({"image": name, "caption": caption, **same} for name, caption in rows_of(content))
    return written.getvalue()


def rows_of(content):
    return [(name, caption) for name, captions in content.items() for caption in captions]


WRITERS = {"karpathy": as_karpathy, "coco": as_coco, "tokens": as_tokens, "csv": as_csv}


@pytest.fixture
def listed(tmp_path):
    """What a file of a text, or of bytes, lists."""

    def of(text: str | bytes, name: str = "captions.any") -> list[CaptionedPhoto]:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return list_sets([path], [tmp_path / "images"])

    return of


def error_of(listed, text: str | bytes) -> str:
    """The sentence with which the file is refused; it names the file."""
    with pytest.raises(DataError, match=r"captions\.any") as caught:
        listed(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", WRITERS)
def test_formats_read_the_same_captions(form, listed, tmp_path):
    found = listed(WRITERS[form](CONTENT))
    assert {photo.path: photo.captions for photo in found} == {
        tmp_path / "images" / name: tuple(tuple(tokenize(caption)) for caption in captions)
        for name, captions in CONTENT.items()
    }
    assert [photo.path.name for photo in found] == ["a.jpg", "b 2.jpg", "ζώο.png", "d.jpg"]


def test_formats_without_splits_split_alike(listed):
    splits = [[(one.path, one.split) for one in listed(WRITERS[form](CONTENT))] for form in WRITERS]
    karpathy, *others = splits
    assert {split for _, split in karpathy} == {"train"}
    assert others[0] == others[1] == others[2]
    assert {split for _, split in others[0]} == {"train", "val", "test"}


@pytest.mark.parametrize("form", WRITERS)
def test_format_is_detected_by_content(form, listed):
    for name in ("captions.json", "captions.csv", "captions.txt", "captions"):
        assert len(listed(WRITERS[form](CONTENT), name)) == len(CONTENT)


@pytest.mark.parametrize("form", WRITERS)
def test_bom_and_line_ends_are_ignored(form, listed):
    text = WRITERS[form](CONTENT).replace("\r\n", "\n")
    for encoding, end in (("utf-8", "\n"), ("utf-8-sig", "\r\n")):
        same = f"\n{text}\n\n".replace("\n", end).encode(encoding)
        assert listed(same) == listed(text)


def test_one_caption_per_photo_is_enough(listed):
    content = {f"{number}.jpg": [f"dog {number}"] for number in range(5)}
    for write in WRITERS.values():
        found = listed(write(content))
        assert [photo.captions for photo in found] == [(("dog", str(n)),) for n in range(5)]


def test_karpathy_splits_and_filepath_are_kept(listed, tmp_path):
    entries = [
        {"filename": "a.jpg", "filepath": "val2014", "split": split, "sentences": [{"raw": "a dog"}]}
        for split in ("train", "restval", "val", "test")
    ]
    found = listed(json.dumps({"images": entries}))
    assert [photo.split for photo in found] == ["train", "restval", "val", "test"]
    assert {photo.path for photo in found} == {tmp_path / "images" / "val2014" / "a.jpg"}


def test_csv_columns_in_any_order_with_split(listed):
    columns = ("id", "caption", "split", "image")
    found = listed(as_csv(CONTENT, columns, id=1, split="restval"))
    assert {photo.split for photo in found} == {"restval"}
    assert [one.captions for one in found] == [one.captions for one in listed(as_csv(CONTENT))]
    assert listed(as_csv(CONTENT).replace("image,caption", " Image , CAPTION ", 1)) == listed(as_csv(CONTENT))


def test_csv_rows_are_grouped_by_image(listed):
    found = listed("image,caption\na.jpg,one\nb.jpg,two\n./a.jpg,three\n")
    assert [(one.path.name, one.captions) for one in found] == [
        ("a.jpg", (("one",), ("three",))),
        ("b.jpg", (("two",),)),
    ]


def test_csv_quoting(listed):
    [found] = listed('caption, image\n"a dog, a ""cat""\nand grass", "a, b.jpg"\n')
    assert found.path.name == "a, b.jpg"
    assert found.captions == (("a", "dog", "a", "cat", "and", "grass"),)


def test_empty_captions_are_listed_but_not_loaded(listed, tmp_path):
    content = {"a.jpg": ["a dog", " . "], "b.jpg": [""], "c.jpg": ["a cat"]}
    for write in WRITERS.values():
        found = listed(write(content))
        assert [one.captions for one in found] == [(("a", "dog"), ()), ((),), (("a", "cat"),)]
        assert list_photos(tmp_path / "captions.any", tmp_path / "images") == with_captions(found)
        assert [one.captions for one in with_captions(found)] == [(("a", "dog"),), (("a", "cat"),)]
    assert listed('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}')[0].captions == ()


def test_several_sets_are_listed_in_order(tmp_path):
    for number, (form, write) in enumerate(WRITERS.items()):
        (tmp_path / form).write_text(write({f"{number}.jpg": ["a dog"]}), encoding="utf-8")
    found = list_sets([tmp_path / form for form in WRITERS], [tmp_path / "of" / form for form in WRITERS])
    assert [one.path for one in found] == [
        tmp_path / "of" / form / f"{number}.jpg" for number, form in enumerate(WRITERS)
    ]


def test_captions_and_images_come_in_pairs():
    with pytest.raises(OptionsError, match="2 --captions and 1 --images"):
        list_sets([Path("a"), Path("b")], [Path("c")])


def names(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.getrandbits(40)}.jpg" for _ in range(count)]


def test_split_by_name_is_80_10_10():
    shares = Counter(split_by_name(names(20_000)).values())
    assert shares["train"] == pytest.approx(16_000, rel=0.03)
    assert shares["val"] == pytest.approx(2_000, rel=0.1)
    assert shares["test"] == pytest.approx(2_000, rel=0.1)


@pytest.mark.parametrize("count", [300, 3_000])
def test_adding_photos_keeps_splits(count):
    everything = names(2 * count)
    whole = split_by_name(everything)
    part = split_by_name(everything[:count])
    assert part == {name: whole[name] for name in everything[:count]}
    assert split_by_name(everything[::-1]) == whole


@pytest.mark.parametrize("count", [3, 10, 50])
def test_small_sets_have_every_split(count):
    for seed in range(100):
        few = names(count, seed)
        splits = split_by_name(few)
        assert set(splits.values()) == {"train", "val", "test"}
        assert split_by_name(few[::-1]) == splits


def test_growing_set_never_moves_train_to_scored():
    for seed in range(20):
        many = names(60, seed)
        before = split_by_name(many[:10])
        for count in range(11, 60):
            now = split_by_name(many[:count])
            assert all(now[name] == "train" for name, split in before.items() if split == "train")
            before = now


def test_smallest_splits_start_with_train():
    assert split_by_name([]) == {}
    assert list(split_by_name(["a"]).values()) == ["train"]
    assert sorted(split_by_name(["a", "b"]).values()) == ["train", "val"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"7",
        b"[]",
        b'[{"image": "a.jpg", "caption": "a dog"}]',
        b'{"photographs": []}',
        b"\xff\xfea\x00",
        b"\x89PNG\r\n\x1a\n\x00",
        b"a.jpg a dog runs\n",
        b"a.jpg\ta dog runs\n",
        b"image;caption\na.jpg;a dog\n",
        b"name,text\na.jpg,a dog\n",
        b"a.jpg,a dog\n",
        b"x" * 300_000,
    ],
)
def test_unknown_format_error_lists_formats(content, listed):
    error = error_of(listed, content)
    assert all(form in error for form in ("Karpathy", "COCO", "Flickr", "CSV", "image,caption"))


IMAGE = '{"id": 1, "file_name": "a.jpg"}'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"images": [\n{"filename": ', "line 2"),
        ('{"images": []}\n{"images": []}', "line 2"),
        ('{"images": {"a": 1}}', "'images'"),
        ('{"images": [7]}', "images[0]"),
        ('{"images": [{"split": "train", "sentences": []}]}', "images[0] has no text 'filename'"),
        ('{"images": [{"filename": 7, "split": "train", "sentences": []}]}', "'filename'"),
        ('{"images": [{"filename": "a.png", "sentences": []}]}', "'split'"),
        ('{"images": [{"filename": "a.png", "split": "train"}]}', "images[0] has no list 'sentences'"),
        ('{"images": [{"filename": "a", "split": "train", "sentences": "a dog"}]}', "'sentences'"),
        ('{"images": [{"filename": "a", "split": "val", "sentences": ["a dog"]}]}', "images[0].sentences[0]"),
        ('{"images": [{"filename": "a", "split": "val", "sentences": [{"raw": 7}]}]}', "'raw'"),
        ('{"images": [{"filename": "a", "split": "training", "sentences": []}]}', "split 'training'"),
        ('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deep"),
        (f'{{"images": [{IMAGE}]}}', "images[0] has no text 'filename'"),
        (f'{{"images": [{IMAGE}], "annotations": 7}}', "'annotations'"),
        (f'{{"images": [{IMAGE}, {IMAGE}], "annotations": []}}', "images[1]"),
        (f'{{"images": [{IMAGE}], "annotations": [{{"image_id": 1, "bbox": []}}]}}', "'caption'"),
        (f'{{"images": [{IMAGE}], "annotations": [{{"caption": "a dog"}}]}}', "'image_id'"),
        (f'{{"images": [{IMAGE}], "annotations": [{{"image_id": [], "caption": "a"}}]}}', "annotations[0]"),
        (f'{{"images": [{IMAGE}], "annotations": [{{"image_id": 2, "caption": "a"}}]}}', "annotations[0]"),
        ('{"images": [{"id": 1}], "annotations": []}', "'file_name'"),
        ("a.jpg#0\ta dog\na.jpg#1 a dog\n", "line 2"),
        ("a.jpg#0\ta dog\n\n\nb.jpg\ta dog\n", "line 4"),
        ("image,caption\na.jpg,one\n,a dog\n", "line 3"),
        ("image,caption\na.jpg,one\n  ,a dog\n", "line 3"),
        ("image,caption\na.jpg\n", "line 2"),
        ("image,caption\na.jpg,a dog, running\n", "line 2"),
        ('image,caption\na.jpg,"a\ndog"\nb.jpg,a,dog\n', "line 4"),
        ('image,caption\na.jpg,one\nb.jpg,"a dog\nc.jpg,two\n', "line 3"),
        ("image,caption,caption\na.jpg,one,two\n", "line 1"),
        ("image,split,caption\na.jpg,train,one\nb.jpg,training,two\n", "line 3 has the split 'training'"),
        ("image,split,caption\na.jpg,,one\n", "line 2 has the split ''"),
    ],
)
def test_malformed_file_error_names_the_place(text, place, listed):
    assert place in error_of(listed, text)


OUTSIDE = ("../a.jpg", "/etc/passwd", "b/../../a.jpg", "..", "b/..", "./../images/a.jpg")


@pytest.mark.parametrize(
    ("form", "name"), [*((form, OUTSIDE[0]) for form in WRITERS), *(("csv", name) for name in OUTSIDE[1:])]
)
def test_paths_outside_images_folder_are_refused(form, name, listed):
    place = {"karpathy": "images[1]", "coco": "images[1]", "tokens": "line 2", "csv": "line 3"}[form]
    error = error_of(listed, WRITERS[form]({"a.jpg": ["a dog"], name: ["a dog"]}))
    assert place in error
    assert "images folder" in error or "names no photo" in error


@pytest.mark.parametrize("filepath", ["..", "/etc", "a/../.."])
def test_filepath_outside_images_folder_is_refused(filepath, listed):
    entry = {"filename": "a.jpg", "filepath": filepath, "split": "train", "sentences": []}
    assert "images[0]" in error_of(listed, json.dumps({"images": [entry]}))


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg", "", "."])
def test_invalid_file_name_is_refused(name, listed):
    assert "images[0]" in error_of(listed, as_karpathy({name: ["a dog"]}))


def test_dots_inside_images_folder_are_resolved(listed, tmp_path):
    [found] = listed(as_karpathy({"b/../c/./a.jpg": ["a dog"]}))
    assert found.path == tmp_path / "images" / "c" / "a.jpg"


def test_missing_captions_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read"):
        read_photos(tmp_path / "nowhere.json", tmp_path)


@pytest.fixture
def on_disk(tmp_path):
    """A file of the photos a.png (train) and b.png (val), and the folder they lie in."""
    for number, name in enumerate(("a.png", "b.png")):
        draw_photo(number).save(tmp_path / name)
    (tmp_path / "captions.csv").write_text(
        "image,caption,split\na.png,a dog,train\nb.png,a cat,val\n", encoding="utf-8"
    )
    return tmp_path / "captions.csv", tmp_path


def test_only_requested_splits_are_read(on_disk):
    [photo] = read_photos(*on_disk, ("val", "test"))
    assert photo.captions == (("a", "cat"),)
    assert photo.read().tobytes() == draw_photo(1).tobytes()


def test_missing_photo_is_named(on_disk):
    (on_disk[1] / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 photos .* do not exist, .*b\.png"):
        read_photos(*on_disk)
    assert len(read_photos(*on_disk, ("train",))) == 1


@pytest.mark.parametrize("content", [b"", b"cut off"])
def test_undecodable_photo_is_named(on_disk, content):
    photos = read_photos(*on_disk)
    photos[1].path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.png"):
        photos[1].read()


def test_data_error_is_a_captioning_error():
    assert issubclass(DataError, CaptioningError)
