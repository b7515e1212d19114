"""The constraints of decoding, each alone and in the captions of a network that would break it."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import draw_photo

from model import Captioner, DecodingOptions
from model.decoding.constraints import NoDanglingEnd, NoRepeatedPair, build_constraints
from model.endings import Endings, EndingTable
from model.english import LINKING_WORDS, NEVER_LAST
from model.vocabulary import Vocabulary

END = Vocabulary.end_id
PHOTOS = [draw_photo(seed) for seed in range(12)]


def repeated(words: list[str]) -> list[tuple[str, str]]:
    counts = Counter(pairwise(words))
    return [pair for pair, count in counts.items() if count > 1 and not LINKING_WORDS.issuperset(pair)]


def test_only_linking_words_may_repeat():
    """Ids: 4 is said after 5, then after 6; now 5 stands last."""
    history = torch.tensor([[1, 5, 4, 6, 4, 5], [1, 7, 5, 5, 6, 5], [1, 4, 5, 6, 7, 8]])
    before = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    after = NoRepeatedPair(frozenset())(before, history)
    assert after[0].isinf().nonzero().flatten().tolist() == [4]
    assert after[1].isinf().nonzero().flatten().tolist() == [5, 6]
    assert torch.equal(after[2], before[2])
    kept = after.isfinite()
    assert torch.equal(after[kept], before[kept])
    assert NoRepeatedPair(frozenset({4, 5}))(before, history)[0].isfinite().all()
    assert NoRepeatedPair(frozenset({4}))(before, history)[0].isinf().sum() == 1


DANGLING = Endings({(4,): True, (5, 4): False, (5,): True})


@pytest.mark.parametrize(
    ("max_length", "banned"),
    [(9, [[0, END], [2, END]]), (2, [[0, END], [0, 4], [0, 5], [1, 4], [1, 5], [2, END], [2, 5]])],
)
def test_dangling_words_are_not_last(max_length, banned):
    """The last word of the longest caption is followed by none either."""
    before = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    after = NoDanglingEnd(DANGLING, max_length)(before, torch.tensor([[1, 4], [1, 7], [1, 5]]))
    assert after.isinf().nonzero().tolist() == banned
    kept = after.isfinite()
    assert torch.equal(after[kept], before[kept])


def test_dangling_caption_is_better_than_none():
    before = torch.full((1, 6), -torch.inf)
    before[:, 4:] = 0.0
    assert torch.equal(NoDanglingEnd(Endings({(4,): True, (5,): True}), 1)(before, torch.ones(1, 1)), before)


@pytest.mark.parametrize("constraint", [NoRepeatedPair(frozenset()), NoDanglingEnd(DANGLING, 9)])
def test_first_word_is_unconstrained(constraint):
    before = torch.zeros(2, 6)
    assert torch.equal(constraint(before, torch.ones(2, 1, dtype=torch.long)), before)


@pytest.mark.parametrize(
    ("language", "tokens", "allow_repeats", "endings", "expected"),
    [
        ("en", "words", False, None, {NoDanglingEnd, NoRepeatedPair}),
        ("en", "words", True, None, {NoDanglingEnd}),
        ("de", "words", False, None, set()),
        ("de", "words", False, DANGLING, {NoDanglingEnd}),
        ("en", "characters", False, DANGLING, set()),
    ],
)
def test_constraints_depend_on_language_and_tokens(language, tokens, allow_repeats, endings, expected):
    vocabulary = Vocabulary.build([["a", "dog"]], min_count=1, tokens=tokens)
    options = DecodingOptions(allow_repeats=allow_repeats, max_length=5)
    assert {type(one) for one in build_constraints(vocabulary, language, options, endings)} == expected


@pytest.mark.parametrize("beam_size", [1, 3])
def test_captions_do_not_repeat(captioner, beam_size):
    freely = DecodingOptions(beam_size=beam_size, max_length=12, allow_repeats=True)
    assert any(repeated(found[0].text.split()) for found in captioner.caption(PHOTOS, freely))
    options = DecodingOptions(beam_size=beam_size, num_captions=beam_size, max_length=12)
    for found in captioner.caption(PHOTOS, options):
        for caption in found:
            assert repeated(caption.text.split()) == []


@pytest.mark.parametrize("max_length", [1, 3, 6])
@pytest.mark.parametrize("is_learnt", [False, True])
def test_no_alternative_ends_on_dangling_words(captioner, config, is_learnt, max_length):
    """Whether finished or cut off, and whatever its place."""
    vocabulary, network = captioner.vocabulary, captioner.network
    with torch.no_grad():  # untrained, it stops after "a" wherever it can
        network.decoder.output.bias[vocabulary.encode(["a"])] += 3
        network.decoder.output.bias[END] += 3
    table = {tuple(vocabulary.encode([word])): True for word in ("a", "on")}
    if is_learnt:
        network.endings = EndingTable(len(table))
        network.endings.fill(table)
    options = DecodingOptions(max_length=max_length, beam_size=4, num_captions=4)

    def ends(language):
        one = Captioner(network, replace(config, language=language), vocabulary, captioner.info)
        found = one.caption(PHOTOS, options)
        assert all(len(captions) == 4 for captions in found)
        return {caption.text.split()[-1] for captions in found for caption in captions}

    assert not ends("en") & ({"a", "on"} if is_learnt else NEVER_LAST)
    assert bool(ends("de") & {"a", "on"}) is not is_learnt
