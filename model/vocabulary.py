"""Words and their ids, and the one tokenization that training, scoring and captioning share."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from model.errors import CheckpointError

PAD, START, END, UNK = "<pad>", "<start>", "<end>", "<unk>"
SPECIALS = (PAD, START, END, UNK)


def tokenize(text: str) -> list[str]:
    """The words of a caption: lower case, punctuation deleted, split on white space.

    Kept are letters, digits and the marks that combine with them, in any script. "t-shirt" becomes
    "tshirt" and "man's" becomes "mans", as in the published tokens of Flickr8k.
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return "".join(filter(_is_kept, composed)).split()


def _is_kept(character: str) -> bool:
    return character.isalnum() or character.isspace() or unicodedata.category(character).startswith("M")


def detokenize(words: Sequence[str]) -> str:
    """The caption as it is shown and scored: words joined by single spaces."""
    return " ".join(words)


class Vocabulary:
    """Tokens and ids both ways. Ids 0 to 3 are pad, start, end and unk."""

    pad_id, start_id, end_id, unk_id = range(4)

    def __init__(self, words: Sequence[str]) -> None:
        """``words``: the ordinary words, without the special tokens, most frequent first.

        Raises:
            CheckpointError: a word occurs twice, is empty, or is a special token.
        """
        if not all(isinstance(word, str) and word and word == word.strip() for word in words):
            raise CheckpointError("The vocabulary must be a list of words, none of them empty.")
        self._tokens = [*SPECIALS, *words]
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            twice = [token for token, count in Counter(self._tokens).items() if count > 1]
            raise CheckpointError(f"The vocabulary lists {twice[0]!r} more than once.")

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], *, min_count: int) -> Vocabulary:
        """The vocabulary of tokenized captions: every word that occurs at least ``min_count`` times."""
        counts = Counter(word for caption in captions for word in caption)
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    @property
    def words(self) -> list[str]:
        """The ordinary words in the order of their ids, without the special tokens."""
        return self._tokens[len(SPECIALS) :]

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of ``words``; a word that is not in the vocabulary becomes ``unk_id``."""
        return [self._ids.get(word, self.unk_id) for word in words]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of ``ids``, one for one."""
        return [self._tokens[index] for index in ids]
