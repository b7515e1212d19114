"""read_labels: what it reads, and what is refused."""

import json

import pytest

from training.data.label_files import read_labels
from training.errors import DataError


def test_label_file_is_read(tmp_path):
    file = tmp_path / "labels.json"
    photos = {"a.jpg": {"1": 0.75, "0": 0}, "b.jpg": {}, "c.jpg": {"0": 1}}
    file.write_text(json.dumps({"labels": ["cup", " crane (bird) "], "photos": photos}))
    found = read_labels(file)
    assert found.names == ["cup", "crane (bird)"]
    assert found.photos == {"a.jpg": {1: 0.75, 0: 0.0}, "b.jpg": {}, "c.jpg": {0: 1.0}}


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("{", "not JSON"),
        ("[]", "it must have the list 'labels'"),
        ('{"labels": ["cup"]}', "it must have the list 'labels'"),
        ('{"labels": ["cup"], "photos": {"a.jpg": 0.5}}', "it must have the list 'labels'"),
        ('{"labels": ["cup"], "photos": {"a.jpg": {"cup": 0.5}}}', "it must have the list 'labels'"),
        ('{"labels": [1], "photos": {}}', "it must have the list 'labels'"),
        ('{"labels": [], "photos": {}}', "names of one label or more"),
        ('{"labels": ["cup", "cup"], "photos": {}}', "'cup' cannot be used"),
        ('{"labels": [" "], "photos": {}}', "'' cannot be used"),
        ('{"labels": ["c\\u0000"], "photos": {}}', "cannot be used"),
        (f'{{"labels": ["{"é" * 33}"], "photos": {{}}}}', "at most 64 bytes"),
        ('{"labels": ["cup"], "photos": {"a.jpg": {"1": 0.5}}}', "a.jpg has the probability 0.5 of label 1"),
        ('{"labels": ["cup"], "photos": {"a.jpg": {"-1": 0.5}}}', "numbered from 0 to 0"),
        ('{"labels": ["cup"], "photos": {"a.jpg": {"0": 1.5}}}', "from 0 to 1"),
        ('{"labels": ["cup"], "photos": {"a.jpg": {"0": NaN}}}', "from 0 to 1"),
    ],
)
def test_malformed_file_is_refused(tmp_path, text, refusal):
    file = tmp_path / "labels.json"
    file.write_text(text)
    with pytest.raises(DataError, match=refusal) as error:
        read_labels(file)
    assert str(file) in str(error.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels file .*none\.json cannot be read"):
        read_labels(tmp_path / "none.json")
