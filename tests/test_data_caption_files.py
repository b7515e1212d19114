"""Captions files: every format gives the same photos, nothing is dropped, and errors name the location."""

import csv
import json
from io import StringIO

import pytest

from model.tokenizer import tokenize
from training.data.caption_files import FORMATS, CaptionedPhoto, parse_captions
from training.errors import DataError

# Captions that a format could misread, the same for all formats.
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
    """The photos that a file with this content lists."""

    def of(text: str | bytes, name: str = "captions.any") -> list[CaptionedPhoto]:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return parse_captions(path, tmp_path / "images")

    return of


def error_of(listed, text: str | bytes) -> str:
    """The message with which the file is refused; it names the file."""
    with pytest.raises(DataError, match=r"captions\.any") as caught:
        listed(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_formats_give_the_same_photos_and_captions(write, listed, tmp_path):
    found = listed(write(CONTENT))
    assert {photo.path: photo.captions for photo in found} == {
        tmp_path / "images" / name: tuple(tuple(tokenize(caption)) for caption in captions)
        for name, captions in CONTENT.items()
    }
    assert [photo.path.name for photo in found] == ["a.jpg", "b 2.jpg", "ζώο.png", "d.jpg"]


def test_formats_without_splits_are_split_alike(listed):
    splits = [[(one.path, one.split) for one in listed(write(CONTENT))] for write in WRITERS.values()]
    karpathy, *others = splits
    assert {split for _, split in karpathy} == {"train"}
    assert others[0] == others[1] == others[2]
    assert {split for _, split in others[0]} == {"train", "val", "test"}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_format_is_detected_by_content(write, listed):
    for name in ("captions.json", "captions.csv", "captions.txt", "captions"):
        assert len(listed(write(CONTENT), name)) == len(CONTENT)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_bom_line_endings_and_blank_lines_are_ignored(write, listed):
    text = write(CONTENT).replace("\r\n", "\n")
    for encoding, end in (("utf-8", "\n"), ("utf-8-sig", "\r\n")):
        same = f"\n{text}\n\n".replace("\n", end).encode(encoding)
        assert listed(same) == listed(text)


def test_one_caption_per_photo_suffices(listed):
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


def test_csv_columns_come_in_any_order(listed):
    columns = ("id", "caption", "split", "image")
    found = listed(as_csv(CONTENT, columns, id=1, split="restval"))
    assert {photo.split for photo in found} == {"restval"}
    assert [one.captions for one in found] == [one.captions for one in listed(as_csv(CONTENT))]
    assert listed(as_csv(CONTENT).replace("image,caption", " Image , CAPTION ", 1)) == listed(as_csv(CONTENT))


def test_rows_of_one_photo_are_merged(listed):
    found = listed("image,caption\na.jpg,one\nb.jpg,two\n./a.jpg,three\n")
    assert [(one.path.name, one.captions) for one in found] == [
        ("a.jpg", (("one",), ("three",))),
        ("b.jpg", (("two",),)),
    ]


def test_csv_quotes_hold_commas_quotes_and_newlines(listed):
    [found] = listed('caption, image\n"a dog, a ""cat""\nand grass", "a, b.jpg"\n')
    assert found.path.name == "a, b.jpg"
    assert found.captions == (("a", "dog", "a", "cat", "and", "grass"),)


def test_captions_without_words_are_kept_as_empty(listed):
    content = {"a.jpg": ["a dog", " . "], "b.jpg": [""], "c.jpg": ["a cat"]}
    for write in WRITERS.values():
        found = listed(write(content))
        assert [one.captions for one in found] == [(("a", "dog"), ()), ((),), (("a", "cat"),)]
    assert listed('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}')[0].captions == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"7",
        b"[]",
        b'[{"image": "a.jpg", "caption": "a dog"}]',
        b'{"photographs": []}',
        b"a.jpg a dog runs\n",
        b"a.jpg\ta dog runs\n",
        b"image;caption\na.jpg;a dog\n",
        b"name,text\na.jpg,a dog\n",
        b"a.jpg,a dog\n",
        b"x" * 300_000,
    ],
)
def test_unknown_format_error_lists_the_formats(content, listed):
    error = error_of(listed, content)
    assert all(known.name in error for known in FORMATS)


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"\x89PNG\r\n\x1a\n\x00"])
def test_file_that_is_not_utf8_is_refused(content, listed):
    assert "not UTF-8" in error_of(listed, content)


IMAGE = '{"id": 1, "file_name": "a.jpg"}'


@pytest.mark.parametrize(
    ("text", "location"),
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
        ('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deeply"),
        ('{"images": [' + "9" * 5_000 + "]}", "cannot be read"),
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
def test_malformed_file_error_names_the_location(text, location, listed):
    assert location in error_of(listed, text)


OUTSIDE = ("../a.jpg", "/etc/passwd", "b/../../a.jpg", "..", "b/..", "./../images/a.jpg")


@pytest.mark.parametrize(
    ("write", "name"),
    [*((write, OUTSIDE[0]) for write in WRITERS.values()), *((as_csv, name) for name in OUTSIDE[1:])],
)
def test_paths_outside_the_images_folder_are_refused(write, name, listed):
    error = error_of(listed, write({"a.jpg": ["a dog"], name: ["a dog"]}))
    assert "images[1]" in error or "line " in error
    assert "images folder" in error or "names no photo" in error


@pytest.mark.parametrize("filepath", ["..", "/etc", "a/../.."])
def test_filepath_outside_the_images_folder_is_refused(filepath, listed):
    entry = {"filename": "a.jpg", "filepath": filepath, "split": "train", "sentences": []}
    assert "images[0]" in error_of(listed, json.dumps({"images": [entry]}))


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg", "", "."])
def test_invalid_file_name_is_refused(name, listed):
    assert "images[0]" in error_of(listed, as_karpathy({name: ["a dog"]}))


def test_paths_are_normalized(listed, tmp_path):
    [found] = listed(as_karpathy({"b/../c/./a.jpg": ["a dog"]}))
    assert found.path == tmp_path / "images" / "c" / "a.jpg"


def test_missing_captions_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read"):
        parse_captions(tmp_path / "nowhere.json", tmp_path)
