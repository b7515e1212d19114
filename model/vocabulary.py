"""The vocabulary: tokens and their ids; and n-grams of ids."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Self

from model.config import CAPTION_LENGTH, MAX_TOKENS
from model.errors import CheckpointError
from model.tokenizer import WORDS, Characters, Pieces, Tokens, Words, learn_tokens

PAD, START, END, UNK = "<pad>", "<start>", "<end>", "<unk>"
SPECIALS = (PAD, START, END, UNK)

MAX_NGRAM = 4  # words of the longest n-gram, as in CIDEr and BLEU

Ngram = tuple[int, ...]


class Vocabulary:
    """Tokens and ids both ways. Ids 0 to 3 are pad, start, end and unk."""

    pad_id, start_id, end_id, unk_id = range(4)

    def __init__(self, words: Sequence[str], tokens: Tokens = WORDS) -> None:
        """Most callers want ``Vocabulary.build``.

        Args:
            words: the ordinary tokens, without the special ones, most frequent first.
            tokens: the tokenizer.

        Raises:
            CheckpointError: a token occurs twice, is empty, or is a special token.
        """
        if not all(isinstance(word, str) and _is_token(word, tokens) for word in words):
            raise CheckpointError("The vocabulary must be a list of words, none of them empty.")
        self.tokens = tokens
        self._tokens = [*SPECIALS, *words]
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            twice = [token for token, count in Counter(self._tokens).items() if count > 1]
            raise CheckpointError(f"The vocabulary lists {twice[0]!r} more than once.")

    @classmethod
    def build(cls, captions: Collection[Sequence[str]], *, min_count: int, tokens: str = Words.kind) -> Self:
        """The vocabulary of captions: all words or characters that are frequent enough, or all pieces.

        Args:
            captions: as ``tokenize`` gives them.
            min_count: minimum occurrences of a word, a character, or a pair that becomes a piece.
            tokens: kind of tokens, as in ``ModelConfig.tokens``.
        """
        learnt = learn_tokens(tokens, captions, min_count=min_count)
        # Rare pieces spell rare words, which would be unknown without them.
        least = 1 if isinstance(learnt, Pieces) else min_count
        return cls(_frequent(map(learnt.cut, captions), least), learnt)

    def grown(self, captions: Collection[Sequence[str]], *, min_count: int) -> Self:
        """The same tokens with the same ids, followed by those of further captions.

        Pieces can spell any caption, so none are added.

        Args:
            captions: as ``tokenize`` gives them.
            min_count: minimum occurrences of a new token; the most frequent comes first.
        """
        if isinstance(self.tokens, Pieces):
            return self
        found = _frequent(map(self.tokens.cut, captions), min_count)
        added = [token for token in found if token not in self._ids]
        return self.__class__([*self.words, *added], self.tokens)

    @property
    def words(self) -> list[str]:
        """The ordinary tokens in the order of their ids, without the special ones."""
        return self._tokens[len(SPECIALS) :]

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of the tokens of a caption; a token that is not in the vocabulary becomes ``unk_id``.

        ``words``: the caption as ``tokenize`` gives it.
        """
        return [self._ids.get(token, self.unk_id) for token in self.tokens.cut(words)]

    def cut(self, words: Sequence[str]) -> list[str]:
        """The tokens of a caption as displayed, one for each id of ``encode``."""
        return [self.tokens.shown(token) for token in self.tokens.cut(words)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ``ids`` as displayed, one for each."""
        return [self.tokens.shown(self._tokens[index]) for index in ids]

    def text(self, ids: Iterable[int]) -> str:
        """The caption that ``ids`` spell, as displayed and scored."""
        return self.tokens.join([self._tokens[index] for index in ids])

    def caption_length(self, captions: Collection[Sequence[str]]) -> int:
        """A maximum length for captions like these: the 99th percentile in tokens; of words always 20.

        ``captions``: at least one, as ``tokenize`` gives them.
        """
        if isinstance(self.tokens, Words):
            return CAPTION_LENGTH
        lengths = sorted(len(self.tokens.cut(words)) for words in captions)
        return min(lengths[(99 * len(lengths) - 1) // 100], MAX_TOKENS)


def count_ngrams(ids: Sequence[int], longest: int = MAX_NGRAM) -> Counter[Ngram]:
    """The number of occurrences of each n-gram in a caption, for n from 1 to ``longest``."""
    return Counter(tuple(ids[at : at + n]) for n in range(1, longest + 1) for at in range(len(ids) - n + 1))


def _frequent(captions: Iterable[Sequence[str]], min_count: int) -> list[str]:
    """The tokens with at least ``min_count`` occurrences, most frequent first."""
    counts = Counter(token for caption in captions for token in caption)
    kept = [token for token, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda token: (-counts[token], token))


def _is_token(word: str, tokens: Tokens) -> bool:
    """Whether a token is valid: not empty, without surrounding spaces, or a space among characters."""
    return word != "" and (word == word.strip() or (word == " " and isinstance(tokens, Characters)))
