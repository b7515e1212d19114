"""Vocabulary: tokenizing, ids, and growing."""

import pytest

from model.errors import CheckpointError
from model.tokenizer import detokenize, tokenize
from model.vocabulary import SPECIALS, Vocabulary


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A black dog is running .", ["a", "black", "dog", "is", "running"]),
        ("The man 's T-shirt_", ["the", "man", "s", "tshirt"]),
        ("Ein Hund läuft über's Gras!", ["ein", "hund", "läuft", "übers", "gras"]),
        ("  собака   бежит\n", ["собака", "бежит"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301", ["caf\u00e9"]),
        (" . ", []),
    ],
)
def test_tokenize_lowercases_and_strips_punctuation(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


def test_tokenize_is_inverse_of_detokenize() -> None:
    words = tokenize("Two dogs, one ball: fun!")
    assert tokenize(detokenize(words)) == words


def test_encode_and_decode_are_inverse() -> None:
    vocabulary = Vocabulary(["dog", "cat"])
    assert vocabulary.decode(vocabulary.encode(["cat", "dog"])) == ["cat", "dog"]
    assert vocabulary.encode(["zebra"]) == [Vocabulary.unk_id]
    assert vocabulary.decode(range(4)) == list(SPECIALS)
    assert len(vocabulary) == 6


def test_vocabulary_is_sorted_by_frequency() -> None:
    captions = [["a", "dog"], ["a", "cat"], ["a", "dog", "zebra"]]
    assert Vocabulary.build(captions, min_count=2).words == ["a", "dog"]


def test_vocabulary_is_independent_of_caption_order() -> None:
    captions = [["b", "a"], ["d", "c"]]
    assert (
        Vocabulary.build(captions, min_count=1).words == Vocabulary.build(captions[::-1], min_count=1).words
    )


def test_grown_vocabulary_keeps_ids() -> None:
    before = Vocabulary(["dog", "cat"])
    after = before.grown([["a", "zebra"], ["a", "dog", "owl"], ["zebra", "a"]], min_count=2)
    assert after.words == ["dog", "cat", "a", "zebra"]
    assert after.encode(["dog", "cat"]) == before.encode(["dog", "cat"])


@pytest.mark.parametrize("words", [["dog", "dog"], ["<end>"], [""], [" "], [" dog"]])
def test_malformed_word_list_is_refused(words: list[str]) -> None:
    with pytest.raises(CheckpointError):
        Vocabulary(words)
