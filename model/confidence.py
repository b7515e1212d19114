"""Confidence: the calibrated probability that a caption is right.

A caption is right if it names nothing that is absent from the photo and people would use its words
(``training.evaluation.correctness`` has the measure). The probability is the product of two logistic
regressions on a few numbers that decoding computes anyway: that the caption names nothing absent, and, if so,
that people use its words. It depends on the photo and the caption alone, not on the rest of the beam, so the
number of captions asked for does not change it.

Dimension key: B images, O objects, P phrases, V vocabulary, W words with evidence, R names of objects.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.evidence import Evidence, WordDetector
from model.phrases import PhraseHead
from model.vocabulary import MAX_NGRAM, Ngram, Vocabulary

FEATURES = (
    "object_log_odds",  # that people name an object, of the least likely one in the caption; 0 without any
    "names_object",  # 1 if the caption names any, else 0
    "word_share",  # of people who use a word, the mean over its words weighted by idf
    "log_prob",  # of the caption
)
MIN_SHARE = 1e-3  # of people, and 1 minus it the largest, so that no head can be infinitely sure


class ConfidenceModel(nn.Module):
    """From the features of captions to the probability that they are right."""

    names: Tensor  # (R, MAX_NGRAM), int32, phrases as ids, padded with Vocabulary.pad_id
    objects: Tensor  # (R,), int32, which object each names, from 1; 0: none, as "train station"

    def __init__(self, features: int, names: int) -> None:
        """``features``: their number; ``names`` R."""
        super().__init__()
        self.output = nn.Linear(features, 2)
        self.register_buffer("names", torch.full((names, MAX_NGRAM), Vocabulary.pad_id, dtype=torch.int32))
        self.register_buffer("objects", torch.zeros(names, dtype=torch.int32))

    def forward(self, features: Tensor) -> Tensor:
        """Features of N captions, (N, len(FEATURES)), to probabilities (N,)."""
        confidence: Tensor = self.output(features).sigmoid().prod(dim=1)
        return confidence

    def fill(self, names: Mapping[Ngram, int]) -> None:
        """Copy phrases, as many as there are rows, and the object that each names."""
        for row, phrase in zip(self.names, names, strict=True):
            row[: len(phrase)] = torch.tensor(phrase)
        self.objects.copy_(torch.tensor([*names.values()]))

    def as_dict(self) -> dict[Ngram, int]:
        """What ``fill`` copied."""
        rows = zip(self.names.tolist(), self.objects.tolist(), strict=True)
        return {tuple(index for index in ids if index != Vocabulary.pad_id): number for ids, number in rows}


class _Head(NamedTuple):
    """What a phrase head or a word detector knows of names and words."""

    rows: Tensor  # (n,), its outputs that are names of objects
    objects: Tensor  # (n,), the object of each
    words: dict[int, tuple[int, float]]  # output and idf of each word


class ConfidenceScorer:
    """Computes the features of captions; reads the tables of a network once."""

    def __init__(
        self, model: ConfidenceModel, phrases: PhraseHead | None, evidence: WordDetector | None
    ) -> None:
        """``phrases`` and ``evidence``: of the same network. Without them captions differ by little."""
        self._names = model.as_dict()
        self._longest = max(map(len, self._names), default=0)
        self._count = 1 + max(self._names.values(), default=0)
        device = model.objects.device
        self._phrases = self._evidence = None
        if phrases:
            ngrams = [
                tuple(index for index in row if index != Vocabulary.pad_id) for row in phrases.ids.tolist()
            ]
            self._phrases = self._head(ngrams, phrases.idf.tolist(), device)
        if evidence:
            self._ids, self._base = evidence.ids.long(), evidence.base
            rarity = nn.functional.softplus(-evidence.base)  # -log p
            self._evidence = self._head([(index,) for index in self._ids.tolist()], rarity.tolist(), device)

    def features(
        self,
        captions: Sequence[Sequence[tuple[Sequence[int], float]]],
        shares: Tensor | None,
        evidence: Evidence | None,
    ) -> list[Tensor]:
        """The features of the captions of B images.

        Args:
            captions: for each image its captions, as ids without the end token and log-probability.
            shares: (B, P), as the phrase head predicts them; None: without.
            evidence: of B rows; None: without a word detector.

        Returns:
            For each image (captions, len(FEATURES)), float32, on the CPU.
        """
        known: list[tuple[_Head, Tensor]] = []
        if self._phrases and shares is not None:
            known.append((self._phrases, shares.float()))
        if self._evidence and evidence is not None:
            known.append((self._evidence, (evidence.words[:, self._ids].float() + self._base).sigmoid()))
        odds = [_object_log_odds(head, outputs, self._count) for head, outputs in known]
        unknown = torch.full((len(captions), self._count), torch.nan)
        by_object = torch.stack([unknown, *(one.cpu() for one in odds)]).nanmean(dim=0).tolist()  # (B, O)
        by_word = known[0][1].tolist() if known else [[]] * len(captions)
        words = known[0][0].words if known else {}
        return [
            torch.tensor(
                [
                    (*self._object_features(ids, of_objects), _word_share(ids, words, of_words), log_prob)
                    for ids, log_prob in of_image
                ]
            )
            for of_image, of_objects, of_words in zip(captions, by_object, by_word, strict=True)
        ]

    def _head(self, ngrams: Sequence[Ngram], idf: Sequence[float], device: torch.device) -> _Head:
        named = [(row, self._names[ngram]) for row, ngram in enumerate(ngrams) if self._names.get(ngram)]
        rows, objects = torch.tensor(named, dtype=torch.long, device=device).reshape(-1, 2).unbind(1)
        words = {
            ngram[0]: (row, rarity)
            for row, (ngram, rarity) in enumerate(zip(ngrams, idf, strict=True))
            if len(ngram) == 1
        }
        return _Head(rows, objects, words)

    def _object_features(self, ids: Sequence[int], log_odds: Sequence[float]) -> tuple[float, float]:
        """The first two of ``FEATURES``; objects that no head knows (NaN) are left out."""
        known = [log_odds[number] for number in self._named(ids) if log_odds[number] == log_odds[number]]
        return (min(known), 1.0) if known else (0.0, 0.0)

    def _named(self, ids: Sequence[int]) -> Iterable[int]:
        """The objects that a caption names; of overlapping phrases the longest counts."""
        start = 0
        while start < len(ids):
            ends = range(min(start + self._longest, len(ids)), start, -1)
            end = next((end for end in ends if tuple(ids[start:end]) in self._names), start + 1)
            if number := self._names.get(tuple(ids[start:end])):
                yield number
            start = end


def _object_log_odds(head: _Head, shares: Tensor, count: int) -> Tensor:
    """Log-odds that any of the names of each object is used, (B, count); NaN for objects without a name.

    ``shares``: of every output of the head, (B, P) or (B, W).
    """
    nobody = torch.log1p(-shares[:, head.rows].clamp_max(1 - MIN_SHARE))  # logarithms, (B, n)
    total = nobody.new_zeros(len(shares), count).index_add(1, head.objects, nobody)
    log_odds = torch.logit(1 - total.exp(), eps=MIN_SHARE)
    is_known = torch.zeros(count, dtype=torch.bool, device=shares.device).index_fill(0, head.objects, True)
    return log_odds.masked_fill(~is_known, torch.nan)


def _word_share(ids: Sequence[int], words: Mapping[int, tuple[int, float]], shares: Sequence[float]) -> float:
    """The third of ``FEATURES``; 0 if no word is known."""
    known = [words[index] for index in ids if index in words]
    total = sum(idf for _, idf in known)
    return sum(idf * shares[row] for row, idf in known) / total if total else 0.0
