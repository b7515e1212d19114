"""No caption ends on a phrase after which another word must come."""

import random

import pytest
import torch
from conftest import draw_photo

from model import DecodingOptions
from model.endings import NEVER_LAST, Endings, EndingTable
from model.vocabulary import Vocabulary
from training.endings import learn_endings

END = Vocabulary.end_id


@pytest.fixture
def endings() -> Endings:
    """ "4" dangles, "5 4" does not, "6 5 4" does; "7 8" does."""
    table = EndingTable(4)
    for row, (ids, dangles) in enumerate((([4], True), ([5, 4], False), ([6, 5, 4], True), ([7, 8], True))):
        table.phrases[row, : len(ids)] = torch.tensor(ids)
        table.dangling[row] = dangles
    return Endings.of_table(table)


@pytest.mark.parametrize(
    ("ids", "dangles"),
    [([4], True), ([9, 4], True), ([5, 4], False), ([9, 5, 4], False), ([9, 6, 5, 4], True), ([8], False)],
)
def test_longest_known_phrase_decides(endings, ids, dangles):
    assert endings.dangles(ids) is dangles


def test_only_the_end_of_dangling_captions_is_forbidden(endings):
    before = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    after = endings.forbid(before, [[4], [5, 4], [7, 8]])
    assert after.isinf().nonzero().tolist() == [[0, END], [2, END]]
    kept = after.isfinite()
    assert torch.equal(after[kept], before[kept])


def test_without_a_table_english_words_are_refused():
    vocabulary = Vocabulary(["dog", "the", "zebra", "a"])
    endings = Endings.of_words(vocabulary)
    assert {word for word in vocabulary.words if endings.dangles(vocabulary.encode([word]))} == {"a", "the"}


def test_captions_do_not_end_on_refused_words(captioner):
    with torch.no_grad():  # untrained, it stops after "a" wherever it can
        captioner.network.decoder.output.bias[captioner.vocabulary.encode(["a"])] += 3
        captioner.network.decoder.output.bias[END] += 3
    photos = [draw_photo(seed) for seed in range(8)]
    found = captioner.caption(photos, DecodingOptions(max_length=6, num_captions=3))
    ends = [one.text.split()[-1] for captions in found for one in captions if one.is_finished]
    assert ends
    assert not NEVER_LAST & set(ends)
    captioner._endings = None
    freely = captioner.caption(photos, DecodingOptions(max_length=6))
    assert any(caption.text.split()[-1] in NEVER_LAST for [caption] in freely)


def test_learned_table_refuses_what_people_do_not_end_on():
    rng = random.Random(0)
    a, white, dog, red, ball, sits = range(4, 10)
    start = [20, 21, 22]
    whole = [[*start, sits, a, white, dog], [*start, a, red, ball], [*start, sits, 10, white]]
    endings = Endings.of_table(learn_endings([rng.choice(whole) for _ in range(3000)]))
    for ids, dangles in (
        ([a, white], True),
        ([10, white], False),
        ([a], True),
        ([ball], False),
        ([dog], False),
    ):
        assert endings.dangles([*start, sits, *ids]) is dangles
    for ids in whole:
        assert not endings.dangles(ids)


def test_learned_table_stores_only_what_shorter_phrases_do_not_say():
    captions = [[20, 21, 22, 4, 5]] * 1000
    table = learn_endings(captions)
    assert [row for row in table.phrases.tolist() if row[0] == 4] == [[4, 0, 0, 0]]
    assert len(table.phrases) == 1
