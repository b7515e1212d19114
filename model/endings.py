"""Which phrases a caption may end on.

A search that knows no good next word may stop before it: "sitting on top of a white". People hardly ever end
a caption on "a white", and often on "in white". Which phrases of up to four words they end on is learnt from
the training captions and stored with the network; the longest known phrase at the end of a caption decides.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary


class EndingTable(nn.Module):
    """The phrases that decide whether a caption may end, as part of a network."""

    phrases: Tensor  # (rows, MAX_NGRAM), int32, ids, padded with Vocabulary.pad_id
    dangling: Tensor  # (rows,), bool: no caption ends on it; false: it may, whatever shorter phrases say

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("phrases", torch.full((rows, MAX_NGRAM), Vocabulary.pad_id, dtype=torch.int32))
        self.register_buffer("dangling", torch.zeros(rows, dtype=torch.bool))

    def fill(self, table: Mapping[Ngram, bool]) -> None:
        """Copy phrases, as many as there are rows, and whether they dangle."""
        for row, phrase in zip(self.phrases, table, strict=True):
            row[: len(phrase)] = torch.tensor(phrase)
        self.dangling.copy_(torch.tensor([*table.values()]))

    def as_dict(self) -> dict[Ngram, bool]:
        """What ``fill`` copied."""
        rows = zip(self.phrases.tolist(), self.dangling.tolist(), strict=True)
        return {tuple(index for index in ids if index != Vocabulary.pad_id): dangles for ids, dangles in rows}


class Endings:
    """Tells whether captions dangle, that is end on a word that another must follow."""

    def __init__(self, table: Mapping[Ngram, bool]) -> None:
        """``table``: for each phrase, as ids, whether it dangles."""
        # By the words before the last, so that all the last words of a caption can be looked up at once.
        self._after: defaultdict[Ngram, dict[int, bool]] = defaultdict(dict)
        for (*before, last), dangles in table.items():
            self._after[tuple(before)][last] = dangles

    def dangles(self, ids: Sequence[int]) -> bool:
        """Whether a caption, as ids without the end token, dangles."""
        return bool(ids) and next(
            (known[ids[-1]] for known in self._known(ids[:-1]) if ids[-1] in known), False
        )

    def dangling_after(self, ids: Sequence[int]) -> list[int]:
        """The words with which a partial caption would dangle."""
        decided: dict[int, bool] = {}
        for known in reversed(self._known(ids)):
            decided |= known
        return [word for word, dangles in decided.items() if dangles]

    def _known(self, ids: Sequence[int]) -> list[dict[int, bool]]:
        """What the table says of words after ``ids``, after the longest phrase first."""
        starts = range(max(0, len(ids) - MAX_NGRAM + 1), len(ids) + 1)
        contexts = (tuple(ids[start:]) for start in starts)
        return [self._after[context] for context in contexts if context in self._after]
