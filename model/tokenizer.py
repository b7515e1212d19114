"""What a caption is made of: words, characters, or pieces of words that were learnt from captions.

A caption comes as ``tokenize`` gives it, a list of words. In a script without spaces a whole sentence is one
such word, which nothing can be learnt of: there, characters or pieces are what words are elsewhere.
This file knows nothing of ids or networks.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Sequence
from typing import Protocol

from model.errors import CheckpointError

PIECES = 4000  # learnt at most: about as many as a few thousand photos have words
LONGEST_PIECE = 12  # characters; without spaces, whole phrases that recur would become one piece with one map
CONTINUED = "##"  # starts a piece that goes on with the word of the piece before; ``tokenize`` leaves no #
UNKNOWN = "<unk>"  # what the learnt pieces call a character that they were not learnt from

# How the Unicode names of the letters and marks of scripts without spaces between words begin.
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
UNSPACED_LETTERS = 6  # a word in a script without spaces; where words are longer on average, none were parted


def tokenize(text: str) -> list[str]:
    """The words of a caption: lower case, punctuation deleted, split on white space.

    Kept are letters, digits and the marks that combine with them, in any script. "t-shirt" becomes
    "tshirt" and "man's" becomes "mans", as in the published tokens of Flickr8k.
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return "".join(filter(_is_kept, composed)).split()


def detokenize(words: Sequence[str]) -> str:
    """The caption as it is shown and scored: words joined by single spaces."""
    return " ".join(words)


class Tokens(Protocol):
    """A way to cut captions, and to put them together again."""

    @property
    def kind(self) -> str:
        """Its name in a model's configuration."""

    def cut(self, words: Sequence[str]) -> list[str]:
        """The tokens of a caption, so that ``join`` gives its words, joined by single spaces."""

    def join(self, tokens: Sequence[str]) -> str:
        """The text of tokens, with single spaces, whatever the order of the tokens."""

    def shown(self, token: str) -> str:
        """A token as it is shown to people."""


class Words:
    """Words as ``tokenize`` gives them."""

    kind = "words"

    def cut(self, words: Sequence[str]) -> list[str]:
        """The words themselves."""
        return list(words)

    def join(self, tokens: Sequence[str]) -> str:
        """Words joined by single spaces."""
        return " ".join(tokens)

    def shown(self, token: str) -> str:
        """The word."""
        return token


class Characters:
    """Characters, each with the marks that combine with it; the space between words is one of them."""

    kind = "characters"

    def cut(self, words: Sequence[str]) -> list[str]:
        """The characters of the words and of the spaces between them."""
        return _characters(" ".join(words))

    def join(self, tokens: Sequence[str]) -> str:
        """Characters one after the other; spaces that part no words are left out."""
        return " ".join("".join(tokens).split())

    def shown(self, token: str) -> str:
        """The character."""
        return token


class Pieces:
    """Pieces of words, by byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) over characters."""

    kind = "pieces"

    def __init__(self, record: str) -> None:
        """``record``: what ``as_record`` gave.

        Raises:
            CheckpointError: it is something else.
        """
        _forbid_threads()
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(record)
        except Exception as error:  # the library raises nothing more particular
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"The pieces of the vocabulary are not as the tokenizers library writes them: {reason}."
            ) from None

    @classmethod
    def learn(cls, captions: Collection[Sequence[str]], *, min_count: int) -> Pieces:
        """Pieces learnt from captions, the same in whatever order these come.

        Args:
            captions: as ``tokenize`` gives them.
            min_count: how often two neighbours must occur to become one piece.
        """
        _forbid_threads()
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import WhitespaceSplit
        from tokenizers.trainers import BpeTrainer

        tokenizer = Tokenizer(BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        trainer = BpeTrainer(
            vocab_size=PIECES,
            min_frequency=min_count,
            max_token_length=LONGEST_PIECE,
            special_tokens=[UNKNOWN],
            show_progress=False,
        )
        tokenizer.train_from_iterator((" ".join(words) for words in captions), trainer)
        return cls(tokenizer.to_str())

    def as_record(self) -> str:
        """The pieces as JSON, in the form of the tokenizers library."""
        return self._tokenizer.to_str()

    def cut(self, words: Sequence[str]) -> list[str]:
        """The pieces of the words, each that continues a word marked as such.

        They are cut out of the text, so a character the pieces were not learnt from stays itself.
        """
        text = " ".join(words)
        places = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return [
            ("" if start == 0 or text[start - 1] == " " else CONTINUED) + text[start:end]
            for start, end in places
        ]

    def join(self, tokens: Sequence[str]) -> str:
        """Words put together; a space before every piece that begins one."""
        parts = [self.shown(token) if token.startswith(CONTINUED) else f" {token}" for token in tokens]
        return "".join(parts).lstrip(" ")

    def shown(self, token: str) -> str:
        """The piece without its mark."""
        return token.removeprefix(CONTINUED)


WORDS = Words()
CHARACTERS = Characters()


def learn_tokens(kind: str, captions: Collection[Sequence[str]], *, min_count: int) -> Tokens:
    """Tokens of a kind that ``ModelConfig.tokens`` names, for captions as ``tokenize`` gives them."""
    return Pieces.learn(captions, min_count=min_count) if kind == Pieces.kind else plain_tokens(kind)


def plain_tokens(kind: str) -> Tokens:
    """Tokens of a kind of which nothing is learnt."""
    return {tokens.kind: tokens for tokens in (WORDS, CHARACTERS)}[kind]


def cut_for_scoring(text: str) -> str:
    """A caption, candidate or reference, with a space wherever scoring cuts it.

    Scores count words, and those are parted by spaces. A script without spaces is scored by its characters,
    as is usual for captions in Chinese: any choice of words would depend on the segmenter, and without
    one a caption would be a single word, right or wrong as a whole. This looks at the text alone, so scores
    of captioners with different tokens can be compared. Text in other scripts comes back as it is.
    """
    if text.isascii():
        return text
    cut = "".join(f" {part} " if _is_unspaced(part[0]) else part for part in _characters(text))
    return " ".join(cut.split()) if cut != text else text


def advise_tokens(captions: Collection[Sequence[str]]) -> str | None:
    """One sentence for those who train on words where captions have none, or None.

    Args:
        captions: as ``tokenize`` gives them.
    """
    unparted = sum(_is_unparted(words) for words in captions)
    if 2 * unparted <= len(captions):
        return None
    return (
        f"warning: {unparted} of {len(captions)} captions are in a script without spaces, so that whole "
        "sentences count as words; train with --tokens characters or --tokens pieces."
    )


def _is_kept(character: str) -> bool:
    return character.isalnum() or character.isspace() or unicodedata.category(character).startswith("M")


def _is_unparted(words: Sequence[str]) -> bool:
    """Whether a caption is in a script without spaces, and nobody parted its words with spaces either."""
    return sum(_is_unspaced(letter) for word in words for letter in word) > UNSPACED_LETTERS * len(words)


def _characters(text: str) -> list[str]:
    """The characters of a text, each with the marks that combine with it."""
    found: list[str] = []
    for character in text:
        if unicodedata.category(character).startswith("M") and found and found[-1] != " ":
            found[-1] += character
        else:
            found.append(character)
    return found


def _is_unspaced(character: str) -> bool:
    # Latin, Greek, Cyrillic, Arabic and the scripts of India are below, and are told without their names.
    return character >= "\u0e00" and unicodedata.name(character, "").startswith(_UNSPACED_NAMES)


def _forbid_threads() -> None:
    """Keep the tokenizers library to one thread: of more it warns in every process that reads photos."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
