"""Endings: which phrases of a table decide whether a caption dangles."""

import pytest
import torch

from model.endings import Endings, EndingTable

TABLE = {(4,): True, (5, 4): False, (6, 5, 4): True, (7, 8): True, (3, 7, 6, 9): True}


@pytest.mark.parametrize(
    ("ids", "dangles"),
    [
        ([], False),
        ([4], True),
        ([9, 4], True),
        ([5, 4], False),
        ([9, 5, 4], False),
        ([9, 6, 5, 4], True),
        ([8], False),
        ([3, 7, 6, 9], True),
        ([7, 6, 9], False),
    ],
)
def test_longest_known_phrase_decides(ids, dangles):
    endings = Endings(TABLE)
    assert endings.dangles(ids) is dangles
    assert not ids or (ids[-1] in endings.dangling_after(ids[:-1])) is dangles


def test_dangling_after_agrees_with_dangles():
    endings = Endings(TABLE)
    for ids in ([], [7], [5], [6, 5], [1, 6, 5], [3, 7, 6], [9, 9, 9, 9]):
        expected = {word for word in range(3, 10) if endings.dangles([*ids, word])}
        assert set(endings.dangling_after(ids)) == expected


def test_table_is_stored_in_the_network():
    table = EndingTable(len(TABLE))
    table.fill(TABLE)
    again = EndingTable(len(TABLE))
    again.load_state_dict(table.state_dict())
    assert again.as_dict() == TABLE
    assert again.phrases.dtype == torch.int32
