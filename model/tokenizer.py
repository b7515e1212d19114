"""Tokenization of captions: words, characters, or pieces learnt by byte-pair encoding.

``tokenize`` splits text into words at white space. In a script without spaces a whole sentence is one such
word, from which nothing can be learnt; there, captions are split into characters or pieces instead.
"""

import os
import unicodedata
from collections.abc import Collection, Sequence
from typing import Protocol, Self

from model.errors import CheckpointError

MAX_PIECES = 4000  # about as many as the captions of a few thousand photos have words
MAX_PIECE = 12  # characters; without spaces, whole frequent phrases would become one piece with one map
CONTINUED = "##"  # starts a piece that continues a word; ``tokenize`` leaves no #
UNKNOWN = "<unk>"  # in the byte-pair encoding: a character that it was not learnt from

# First words of the Unicode names of letters and marks in scripts without spaces between words.
_UNSPACED_NAMES = (
    "CJK ",
    "IDEOGRAPHIC ",
    "HIRAGANA ",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
    "JAVANESE ",
)
MAX_UNSPACED_LETTERS = 6  # per word, on average; longer words in such a script are unsegmented sentences


def tokenize(text: str) -> list[str]:
    """The words of a caption: lower case, without punctuation, split at white space.

    Letters, digits and combining marks of any script are kept. "t-shirt" becomes "tshirt" and "man's"
    becomes "mans", as in the published tokens of Flickr8k.
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return "".join(filter(_is_kept, composed)).split()


def detokenize(words: Sequence[str]) -> str:
    """The caption as displayed and scored: words joined by single spaces."""
    return " ".join(words)


class Tokens(Protocol):
    """A kind of tokens: splits captions and joins them again."""

    kind: str  # its name in a model's configuration

    def cut(self, words: Sequence[str]) -> list[str]:
        """The tokens of a caption; ``join`` gives its words, joined by single spaces."""

    def join(self, tokens: Sequence[str]) -> str:
        """The text of tokens in any order, with single spaces."""

    def shown(self, token: str) -> str:
        """A token as displayed."""


class Words:
    """Words as ``tokenize`` gives them."""

    kind = "words"

    def cut(self, words: Sequence[str]) -> list[str]:
        return list(words)

    def join(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens)

    def shown(self, token: str) -> str:
        return token


class Characters:
    """Characters, each with its combining marks; the space between words is one of them."""

    kind = "characters"

    def cut(self, words: Sequence[str]) -> list[str]:
        """The characters of the words and of the spaces between them."""
        return _characters(" ".join(words))

    def join(self, tokens: Sequence[str]) -> str:
        """Characters joined; superfluous spaces are dropped."""
        return " ".join("".join(tokens).split())

    def shown(self, token: str) -> str:
        return token


class Pieces:
    """Pieces of words, by byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) over characters."""

    kind = "pieces"

    def __init__(self, record: str) -> None:
        """``record``: as returned by ``as_record``.

        Raises:
            CheckpointError: it is anything else.
        """
        _use_one_thread()
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(record)
        except Exception as error:  # the library raises nothing more specific
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"The byte-pair encoding is not in the format of the tokenizers library: {reason}."
            ) from None

    @classmethod
    def learn(cls, captions: Collection[Sequence[str]], *, min_count: int) -> Self:
        """Pieces learnt from captions, whose order does not matter.

        Args:
            captions: as ``tokenize`` gives them.
            min_count: occurrences of a pair before it becomes a piece.
        """
        _use_one_thread()
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import WhitespaceSplit
        from tokenizers.trainers import BpeTrainer

        tokenizer = Tokenizer(BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        trainer = BpeTrainer(
            vocab_size=MAX_PIECES,
            min_frequency=min_count,
            max_token_length=MAX_PIECE,
            special_tokens=[UNKNOWN],
            show_progress=False,
        )
        tokenizer.train_from_iterator((" ".join(words) for words in captions), trainer)
        return cls(tokenizer.to_str())

    def as_record(self) -> str:
        """The byte-pair encoding as JSON, in the format of the tokenizers library."""
        return self._tokenizer.to_str()

    def cut(self, words: Sequence[str]) -> list[str]:
        """The pieces of the words, marked with ``CONTINUED`` where they continue one.

        They are slices of the text, so unknown characters are preserved.
        """
        text = " ".join(words)
        return [
            ("" if start == 0 or text[start - 1] == " " else CONTINUED) + text[start:end]
            for start, end in self._tokenizer.encode(text, add_special_tokens=False).offsets
        ]

    def join(self, tokens: Sequence[str]) -> str:
        """Pieces joined, with a space before each that begins a word."""
        parts = [self.shown(token) if token.startswith(CONTINUED) else f" {token}" for token in tokens]
        return "".join(parts).lstrip(" ")

    def shown(self, token: str) -> str:
        return token.removeprefix(CONTINUED)


WORDS = Words()
CHARACTERS = Characters()


def learn_tokens(kind: str, captions: Collection[Sequence[str]], *, min_count: int) -> Tokens:
    """The tokenizer of a kind, as in ``ModelConfig.tokens``, for captions as ``tokenize`` gives them."""
    return Pieces.learn(captions, min_count=min_count) if kind == Pieces.kind else plain_tokens(kind)


def plain_tokens(kind: str) -> Tokens:
    """The tokenizer of a kind that needs no learning."""
    return {tokens.kind: tokens for tokens in (WORDS, CHARACTERS)}[kind]


def cut_for_scoring(text: str) -> str:
    """A caption, candidate or reference, with a space between the tokens that metrics count.

    Scripts without spaces are scored by character, as is usual for Chinese captions: words would depend on a
    segmenter, and without one a caption would be a single word. This depends on the text alone, so scores of
    captioners with different kinds of tokens are comparable. Text in other scripts is returned unchanged.
    """
    if text.isascii():
        return text
    cut = "".join(f" {part} " if _is_unspaced(part[0]) else part for part in _characters(text))
    return " ".join(cut.split()) if cut != text else text


def advise_tokens(captions: Collection[Sequence[str]]) -> str | None:
    """A warning for training on words in a script without spaces, or None.

    ``captions``: as ``tokenize`` gives them.
    """
    unsegmented = sum(_is_unsegmented(words) for words in captions)
    if 2 * unsegmented <= len(captions):
        return None
    return (
        f"warning: {unsegmented} of {len(captions)} captions are in a script without spaces, so that whole "
        "sentences count as words; train with --tokens characters or --tokens pieces."
    )


def _is_kept(character: str) -> bool:
    return character.isalnum() or character.isspace() or unicodedata.category(character).startswith("M")


def _is_unsegmented(words: Sequence[str]) -> bool:
    """Whether a caption is in a script without spaces, and its words are not separated by spaces either."""
    return sum(_is_unspaced(letter) for word in words for letter in word) > MAX_UNSPACED_LETTERS * len(words)


def _characters(text: str) -> list[str]:
    """The characters of a text, each with its combining marks."""
    found: list[str] = []
    for character in text:
        if unicodedata.category(character).startswith("M") and found and found[-1] != " ":
            found[-1] += character
        else:
            found.append(character)
    return found


def _is_unspaced(character: str) -> bool:
    # Latin, Greek, Cyrillic, Arabic and the scripts of India are below, and need no lookup of names.
    return character >= "\u0e00" and unicodedata.name(character, "").startswith(_UNSPACED_NAMES)


def _use_one_thread() -> None:
    """Limit the tokenizers library to one thread: with more it warns in every forked process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
