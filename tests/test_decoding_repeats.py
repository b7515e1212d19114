"""No caption says a pair of words twice, but those that only link others."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from conftest import draw_photo

from model import DecodingOptions
from model.decoding.repeats import LINKING_WORDS, linking_ids, without_repeats
from model.vocabulary import Vocabulary


def repeated(words: list[str]) -> list[tuple[str, str]]:
    counts = Counter(pairwise(words))
    return [pair for pair, count in counts.items() if count > 1 and not LINKING_WORDS.issuperset(pair)]


def test_only_linking_words_may_repeat():
    """Ids: 4 is said after 5, then after 6; now 5 stands last."""
    history = torch.tensor([[1, 5, 4, 6, 4, 5], [1, 7, 5, 5, 6, 5], [1, 4, 5, 6, 7, 8]])
    before = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    after = without_repeats(before, history, frozenset())
    assert after[0].isinf().nonzero().flatten().tolist() == [4]
    assert after[1].isinf().nonzero().flatten().tolist() == [5, 6]
    assert torch.equal(after[2], before[2])
    kept = after.isfinite()
    assert torch.equal(after[kept], before[kept])
    assert without_repeats(before, history, frozenset({4, 5}))[0].isfinite().all()
    assert without_repeats(before, history, frozenset({4}))[0].isinf().sum() == 1


def test_first_word_is_unconstrained():
    before = torch.zeros(2, 6)
    assert torch.equal(without_repeats(before, torch.ones(2, 1, dtype=torch.long), frozenset()), before)


def test_linking_words_are_found_in_vocabulary():
    vocabulary = Vocabulary(["dog", "in", "zebra", "a"])
    assert linking_ids(vocabulary) == set(vocabulary.encode(["in", "a"]))
    assert vocabulary.unk_id not in linking_ids(vocabulary)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_captions_do_not_repeat(captioner, beam_size):
    photos = [draw_photo(seed) for seed in range(12)]
    freely = DecodingOptions(beam_size=beam_size, max_length=12, allow_repeats=True)
    loops = [found[0].text.split() for found in captioner.caption(photos, freely)]
    assert any(map(repeated, loops))  # untrained, it goes round and round
    options = DecodingOptions(beam_size=beam_size, num_captions=beam_size, max_length=12)
    for found in captioner.caption(photos, options):
        for caption in found:
            assert repeated(caption.text.split()) == []
