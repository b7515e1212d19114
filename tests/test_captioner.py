"""Captioner: captions, forced decoding, threads and batches."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import WORDS, config_of_kind, draw_photo, random_network
from PIL import Image

from model import (
    Caption,
    Captioner,
    CheckpointInfo,
    DecodingOptions,
    ImageError,
    ModelConfig,
    NonFiniteError,
    OptionsError,
)
from model import captioner as module
from model.attention import ATTENTION_KINDS
from model.decoding.constraints import BANNED_IDS
from model.network import CaptionNetwork
from model.vocabulary import Vocabulary

KINDS = tuple(ATTENTION_KINDS)


def captioner_of(config: ModelConfig, kind: str) -> Captioner:
    """One that ends its captions and never thinks of tokens it may not say, so that it reads what it said."""
    config = config_of_kind(config, kind)
    network = random_network(config)
    with torch.no_grad():
        network.decoder.output.bias[list(BANNED_IDS)] -= 1000
        network.decoder.output.bias[Vocabulary.end_id] += 6
    return Captioner(
        network, config, Vocabulary(WORDS), CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    )


def assert_same_words(read: Caption, said: Caption, *, skip: int = 0) -> None:
    """Word for word what was seen and how likely it was, but for the scores of the first ``skip``."""
    assert [word.word for word in read.words] == [word.word for word in said.words]
    for index, (one, other) in enumerate(zip(read.words, said.words, strict=True)):
        if index >= skip:
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
        for name in ("beta", "attention", "heads", "sentinel", "chosen"):
            found, expected = getattr(one, name), getattr(other, name)
            assert (found is None) == (expected is None), name
            if found is not None:
                torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_caption_has_words_with_attention(captioner: Captioner) -> None:
    [[caption]] = captioner.caption([draw_photo(1)])
    assert caption.text == " ".join(word.word for word in caption.words)
    assert set(caption.text.split()) <= set(WORDS)
    assert (caption.grid.rows, caption.grid.columns) == (5, 5)
    for word in caption.words:
        assert word.log_prob <= 0 < word.beta < 1
        assert [len(row) for row in word.attention] == [5] * 5
        assert sum(map(sum, word.attention)) == pytest.approx(1, abs=1e-5)


def test_captioning_is_batch_invariant(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 4)  # nine photos are three batches
    photos = [draw_photo(seed, (40 + 9 * seed, 60)) for seed in range(9)]
    options = DecodingOptions(beam_size=3, num_captions=2)
    together = captioner.caption(photos, options)
    assert len({captions[0].text for captions in together}) > 1
    for photo, found in zip(photos, together, strict=True):
        [alone] = captioner.caption([photo], options)
        assert [caption.text for caption in alone] == [caption.text for caption in found]
        assert alone[0].log_prob == pytest.approx(found[0].log_prob, abs=1e-4)


def test_n_best_captions_differ(captioner: Captioner) -> None:
    [captions] = captioner.caption([draw_photo(3)], DecodingOptions(beam_size=5, num_captions=5))
    assert len({caption.text for caption in captions}) == 5


def test_caption_of_no_images_is_empty(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_captioner_is_thread_safe(captioner: Captioner) -> None:
    photos = [draw_photo(seed) for seed in range(24)]
    expected = [captioner.caption([photo])[0][0].text for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda photo: captioner.caption([photo])[0][0].text, photos)
    assert list(found) == expected


def test_captioning_does_not_modify_network(captioner: Captioner, network: CaptionNetwork) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    keys = {name: set(vars(part)) for name, part in network.named_modules()}
    captioner.caption([draw_photo(7)])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert {name: set(vars(part)) for name, part in network.named_modules()} == keys


def test_records_round_or_omit_attention(captioner: Captioner) -> None:
    [[caption]] = captioner.caption([draw_photo(2)])
    record = caption.as_record(attention=True)
    assert record["caption"] == caption.text
    assert record["grid"] == {"rows": 5, "columns": 5, "box": [0.0, 0.0, 1.0, 1.0]}
    weights = [weight for row in record["words"][0]["attention"] for weight in row]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert all("attention" not in word for word in caption.as_record(attention=False)["words"])


def test_image_not_in_rgb_is_refused(captioner: Captioner) -> None:
    with pytest.raises(ImageError, match="open_image"):
        captioner.caption([Image.new("L", (20, 20))])


def test_non_finite_output_is_an_error(captioner: Captioner, network: CaptionNetwork) -> None:
    with torch.no_grad():
        network.decoder.output.bias[-1] = torch.nan
    with pytest.raises(NonFiniteError, match="not finite"):
        captioner.caption([draw_photo(1)])
    with pytest.raises(NonFiniteError, match="not finite"):
        captioner.force_decode([draw_photo(1)], [[["a"]]])


def test_unknown_device_is_refused(checkpoint: Path) -> None:
    with pytest.raises(OptionsError, match="no device 'abacus'"):
        Captioner.load(checkpoint, "abacus")


@pytest.mark.parametrize("kind", ["none", "additive", "multi_head", "sentinel", "hard"])
def test_word_has_fields_of_its_attention_kind(config: ModelConfig, kind: str) -> None:
    captioner = captioner_of(config, kind)
    [[caption]] = captioner.caption([draw_photo(1)])
    assert caption.words
    for word in caption.words:
        assert (word.attention is None) == (kind == "none")
        assert (word.heads is not None) == (kind == "multi_head")
        assert (word.sentinel is not None) == (kind == "sentinel")
        assert (word.chosen is not None) == (kind == "hard")
        for weights in filter(None, (word.attention, *(word.heads or ()))):
            assert [len(row) for row in weights] == [5] * 5
            assert sum(map(sum, weights)) == pytest.approx(1, abs=1e-5)
        if word.heads is not None:
            mean = torch.tensor(word.heads).mean(0)
            torch.testing.assert_close(mean, torch.tensor(word.attention))
        if word.sentinel is not None:
            assert 0 <= word.sentinel <= 1
        if word.chosen is not None:
            row, column = word.chosen
            assert word.attention[row][column] == max(map(max, word.attention))


def test_word_without_gate_has_no_beta(config: ModelConfig) -> None:
    [[caption]] = captioner_of(replace(config, gate="off"), "additive").caption([draw_photo(1)])
    assert all(word.beta is None for word in caption.words)


def test_hard_attention_is_sampled_only_with_seed(config: ModelConfig) -> None:
    captioner, photos = captioner_of(config, "hard"), [draw_photo(seed) for seed in range(6)]
    with torch.no_grad():
        captioner.network.decoder.attention.energy_layer.weight.div_(
            8
        )  # maps even enough for draws to differ

    def cells(seed: int | None, some: list[Image.Image]) -> list[list[tuple[int, int]]]:
        found = captioner.caption(some, DecodingOptions(draw_seed=seed))
        return [[word.chosen for word in captions[0].words] for captions in found]

    assert cells(None, photos) == cells(None, photos)
    assert cells(5, photos) == cells(5, photos)
    assert cells(5, photos) != cells(6, photos) != cells(None, photos)
    assert cells(5, photos[2:3]) == cells(5, photos)[2:3]


@pytest.mark.parametrize("kind", ["none", "additive", "sentinel"])
def test_seed_does_not_change_soft_attention(config: ModelConfig, kind: str) -> None:
    captioner = captioner_of(config, kind)
    plain, seeded = (captioner.caption([draw_photo(1)], DecodingOptions(draw_seed=s)) for s in (None, 5))
    assert plain == seeded


@pytest.mark.parametrize("kind", KINDS)
def test_forced_decoding_equals_generation(config: ModelConfig, kind: str) -> None:
    captioner, photos = captioner_of(config, kind), [draw_photo(seed) for seed in range(5)]
    said = [captions[0] for captions in captioner.caption(photos, DecodingOptions(beam_size=2))]
    read = captioner.force_decode(photos, [[caption.text.split()] for caption in said])
    assert any(caption.is_finished for caption in said)
    for [again], caption in zip(read, said, strict=True):
        assert (again.text, again.grid) == (caption.text, caption.grid)
        # Search leaves no probability to an empty caption, so its first word may be likelier.
        assert_same_words(again, caption, skip=1)
        assert again.words[0].log_prob <= caption.words[0].log_prob + 1e-5
        if caption.is_finished:
            after = again.log_prob - again.words[0].log_prob
            assert after == pytest.approx(caption.log_prob - caption.words[0].log_prob, abs=1e-3)


def test_forced_decoding_is_batch_invariant(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several captions, of none, of one word, of words it does not know, in three batches."""
    monkeypatch.setattr(module, "BATCH_SIZE", 2)
    photos = [draw_photo(seed) for seed in range(5)]
    texts = [
        ["a dog runs", "a cat", "a dog sits on grass"],
        [],
        ["grass"],
        ["the dog runs", "a cat"],
        ["a zebra sits on a zebra"],
    ]
    captions = [[text.split() for text in of_photo] for of_photo in texts]
    together = captioner.force_decode(photos, captions)
    assert [[caption.text for caption in found] for found in together] == texts
    for photo, words, found in zip(photos, captions, together, strict=True):
        for own, caption in zip(words, found, strict=True):
            [[alone]] = captioner.force_decode([photo], [[own]])
            assert alone.log_prob == pytest.approx(caption.log_prob, abs=1e-4)
            assert_same_words(alone, caption)


def test_forced_caption_score_includes_end(captioner: Captioner) -> None:
    [[caption]] = captioner.force_decode([draw_photo(1)], [[["a", "dog"]]])
    words = sum(word.log_prob for word in caption.words)
    assert caption.log_prob < words < 0
    assert caption.is_finished
    [[longer]] = captioner.force_decode([draw_photo(1)], [[["a", "dog", "runs"]]])
    assert_same_words(replace(longer, words=longer.words[:2]), caption)


def test_unknown_word_is_decoded_as_unk(captioner: Captioner) -> None:
    texts = ["a dog sits on", "a zebra sits on", "a quagga sits on"]
    [[known, unknown, other]] = captioner.force_decode([draw_photo(1)], [[text.split() for text in texts]])
    assert (unknown.text, unknown.words[1].word) == ("a zebra sits on", "zebra")
    assert unknown.log_prob == pytest.approx(other.log_prob, abs=1e-5)
    assert unknown.words[2].log_prob != pytest.approx(known.words[2].log_prob, abs=1e-3)
    one, two = (torch.tensor([word.attention for word in caption.words]) for caption in (unknown, known))
    # A word is attended for before the previous word has updated the state.
    torch.testing.assert_close(one[:3], two[:3])
    assert not torch.allclose(one[3], two[3], atol=1e-3)


def test_forced_decoding_matches_captions_to_images(captioner: Captioner) -> None:
    photos, words = [draw_photo(seed) for seed in range(3)], ["a", "dog"]
    found = [captions[0].log_prob for captions in captioner.force_decode(photos, [[words]] * 3)]
    assert len({round(log_prob, 3) for log_prob in found}) == 3
    turned = [captions[0].log_prob for captions in captioner.force_decode(photos[::-1], [[words]] * 3)]
    assert turned[::-1] == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("captions", [[], [[]], [[], []]], ids=["no photos", "one", "two"])
def test_forced_decoding_of_nothing_is_empty(captioner: Captioner, captions: list[list[list[str]]]) -> None:
    assert captioner.force_decode([draw_photo(seed) for seed in range(len(captions))], captions) == captions


def test_empty_caption_is_decoded_as_its_end(captioner: Captioner) -> None:
    [[nothing, something]] = captioner.force_decode([draw_photo(1)], [[[], ["a"]]])
    assert (nothing.text, nothing.words) == ("", ())
    assert nothing.log_prob < 0
    assert something.words


def test_single_empty_caption_is_decoded(captioner: Captioner) -> None:
    [[nothing]] = captioner.force_decode([draw_photo(1)], [[[]]])
    assert nothing.words == ()
