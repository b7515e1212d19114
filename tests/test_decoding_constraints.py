"""The constraints of decoding, each alone and in the captions of a network that would break it."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from conftest import draw_photo

from model import Captioner, DecodingOptions
from model.decoding.constraints import NoDanglingEnd, NoRepeatedPair, build_constraints
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


def test_end_is_impossible_after_dangling_word():
    before = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    after = NoDanglingEnd(frozenset({5, 4}))(before, torch.tensor([[1, 4], [1, 7], [1, 5]]))
    assert after.isinf().nonzero().tolist() == [[0, END], [2, END]]
    kept = after.isfinite()
    assert torch.equal(after[kept], before[kept])


@pytest.mark.parametrize("constraint", [NoRepeatedPair(frozenset()), NoDanglingEnd(frozenset({4}))])
def test_first_word_is_unconstrained(constraint):
    before = torch.zeros(2, 6)
    assert torch.equal(constraint(before, torch.ones(2, 1, dtype=torch.long)), before)


@pytest.mark.parametrize(
    ("language", "tokens", "allow_repeats", "expected"),
    [
        ("en", "words", False, {NoDanglingEnd, NoRepeatedPair}),
        ("en", "words", True, {NoDanglingEnd}),
        ("de", "words", False, set()),
        ("en", "characters", False, set()),
    ],
)
def test_constraints_concern_english_words_alone(language, tokens, allow_repeats, expected):
    vocabulary = Vocabulary.build([["a", "dog"]], min_count=1, tokens=tokens)
    built = build_constraints(vocabulary, language, DecodingOptions(allow_repeats=allow_repeats))
    assert {type(one) for one in built} == expected


@pytest.mark.parametrize("beam_size", [1, 3])
def test_captions_do_not_repeat(captioner, beam_size):
    freely = DecodingOptions(beam_size=beam_size, max_length=12, allow_repeats=True)
    assert any(repeated(found[0].text.split()) for found in captioner.caption(PHOTOS, freely))
    options = DecodingOptions(beam_size=beam_size, num_captions=beam_size, max_length=12)
    for found in captioner.caption(PHOTOS, options):
        for caption in found:
            assert repeated(caption.text.split()) == []


def test_captions_do_not_end_on_dangling_words(captioner):
    with torch.no_grad():  # untrained, it stops after "a" wherever it can
        captioner.network.decoder.output.bias[captioner.vocabulary.encode(["a"])] += 3
        captioner.network.decoder.output.bias[END] += 3

    def ends(captioner):
        found = captioner.caption(PHOTOS, DecodingOptions(max_length=6))
        return {caption.text.split()[-1] for [caption] in found if caption.is_finished}

    assert ends(captioner)
    assert not NEVER_LAST & ends(captioner)
    german = replace(captioner.config, language="de")
    assert NEVER_LAST & ends(Captioner(captioner.network, german, captioner.vocabulary, captioner.info))
