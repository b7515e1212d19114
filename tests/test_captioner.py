from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import WORDS, draw_photo
from PIL import Image

from model import Captioner, DecodingOptions, ImageError, OptionsError
from model import captioner as module
from model.network import CaptionNetwork


def test_a_caption_is_its_words_with_attention_on_the_grid(captioner: Captioner) -> None:
    [[caption]] = captioner.caption([draw_photo(1)])
    assert caption.text == " ".join(word.word for word in caption.words)
    assert set(caption.text.split()) <= set(WORDS)
    assert (caption.grid.rows, caption.grid.columns) == (5, 5)
    for word in caption.words:
        assert word.log_prob <= 0 < word.beta < 1
        assert [len(row) for row in word.attention] == [5] * 5
        assert sum(map(sum, word.attention)) == pytest.approx(1, abs=1e-5)


def test_a_photograph_is_captioned_alike_alone_and_in_company(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 4)  # nine photographs are three batches
    photos = [draw_photo(seed, (40 + 9 * seed, 60)) for seed in range(9)]
    options = DecodingOptions(beam_size=3, num_captions=2)
    together = captioner.caption(photos, options)
    assert len({captions[0].text for captions in together}) > 1
    for photo, found in zip(photos, together, strict=True):
        [alone] = captioner.caption([photo], options)
        assert [caption.text for caption in alone] == [caption.text for caption in found]
        assert alone[0].log_prob == pytest.approx(found[0].log_prob, abs=1e-4)


def test_n_best_captions_differ_and_come_best_first(captioner: Captioner) -> None:
    [captions] = captioner.caption([draw_photo(3)], DecodingOptions(beam_size=5, num_captions=5))
    assert len({caption.text for caption in captions}) == 5


def test_no_photographs_have_no_captions(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_threads_share_a_captioner_and_each_gets_its_own_captions(captioner: Captioner) -> None:
    photos = [draw_photo(seed) for seed in range(24)]
    expected = [captioner.caption([photo])[0][0].text for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda photo: captioner.caption([photo])[0][0].text, photos)
    assert list(found) == expected


def test_captioning_changes_nothing_in_the_network(captioner: Captioner, network: CaptionNetwork) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    keys = {name: set(vars(part)) for name, part in network.named_modules()}
    captioner.caption([draw_photo(7)])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert {name: set(vars(part)) for name, part in network.named_modules()} == keys


def test_records_round_the_weights_and_leave_them_out_on_request(captioner: Captioner) -> None:
    [[caption]] = captioner.caption([draw_photo(2)])
    record = caption.as_record(attention=True)
    assert record["caption"] == caption.text
    assert record["grid"] == {"rows": 5, "columns": 5, "box": [0.0, 0.0, 1.0, 1.0]}
    weights = [weight for row in record["words"][0]["attention"] for weight in row]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert all("attention" not in word for word in caption.as_record(attention=False)["words"])


def test_a_picture_that_was_not_opened_by_us_is_refused_with_advice(captioner: Captioner) -> None:
    with pytest.raises(ImageError, match="open_image"):
        captioner.caption([Image.new("L", (20, 20))])


def test_a_device_that_is_not_here_is_refused_in_one_sentence(checkpoint: Path) -> None:
    with pytest.raises(OptionsError, match="no device 'abacus'"):
        Captioner.load(checkpoint, "abacus")
