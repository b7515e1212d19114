"""No caption ends on a word after which another must come."""

import torch
from conftest import draw_photo

from model import DecodingOptions
from model.decoding.endings import NEVER_LAST, dangling_ids, without_dangling_ends
from model.vocabulary import Vocabulary

END = Vocabulary.end_id


def test_end_is_impossible_after_dangling_word():
    before = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    after = without_dangling_ends(before, torch.tensor([4, 7, 5]), frozenset({5, 4}))
    assert after.isinf().nonzero().tolist() == [[0, END], [2, END]]
    kept = after.isfinite()
    assert torch.equal(after[kept], before[kept])


def test_dangling_words_are_found_in_vocabulary():
    vocabulary = Vocabulary(["dog", "the", "zebra", "a"])
    assert dangling_ids(vocabulary) == set(vocabulary.encode(["a", "the"]))


def test_captions_do_not_end_on_dangling_words(captioner):
    with torch.no_grad():  # untrained, it stops after "a" wherever it can
        captioner.network.decoder.output.bias[captioner.vocabulary.encode(["a"])] += 3
        captioner.network.decoder.output.bias[END] += 3
    found = captioner.caption([draw_photo(seed) for seed in range(8)], DecodingOptions(max_length=6))
    ends = [caption.text.split()[-1] for [caption] in found if caption.is_finished]
    assert ends
    assert not NEVER_LAST & set(ends)
    captioner._dangling = frozenset()
    freely = captioner.caption([draw_photo(seed) for seed in range(8)], DecodingOptions(max_length=6))
    assert any(caption.text.split()[-1] in NEVER_LAST for [caption] in freely)
