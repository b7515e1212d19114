"""Beam search over a batch of images.

Knows ids, rows and log-probabilities, but neither words nor images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from model.attention import AttentionMaps, Memory
from model.decoder import DecoderState, Step
from model.decoding.constraints import Constraint, allowed_log_probs
from model.decoding.options import DecodingOptions
from model.errors import NonFiniteError
from model.vocabulary import Vocabulary

# The score, added to the log-probability, of a partial caption or one with its end token: from the index of
# its image and its ids.
Scorer = Callable[[int, tuple[int, ...]], float]


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A caption found by the search, as ids."""

    ids: tuple[int, ...]  # without the end token
    log_probs: tuple[float, ...]  # of each word
    maps: tuple[AttentionMaps, ...]  # of each word, without the dimension of rows
    log_prob: float  # of the words and, if finished, of the end token
    score: float  # log_prob / tokens ** length_penalty, the end token counted, plus what the scorer adds
    is_finished: bool


class _Beams(NamedTuple):
    """The hypotheses in the beams: row b * K + k is beam k of image b."""

    ids: Tensor  # (B * K, 1 + T), the start token first
    log_probs: Tensor  # (B * K, T), of each word
    rows: Tensor  # (B * K, T), the row of each step's output that the word was chosen from

    def extended(self, rows: Tensor, words: Tensor, log_probs: Tensor) -> Self:
        """The hypotheses in ``rows``, each with a word more; (B * K,) each."""
        new = (words, log_probs, rows)
        return self.__class__(
            *(torch.cat((old[rows], last.unsqueeze(1)), dim=1) for old, last in zip(self, new, strict=True))
        )

    def hypothesis(
        self, row: int, maps: Sequence[AttentionMaps], *, log_prob: float, score: float, is_finished: bool
    ) -> Hypothesis:
        """One row as the search returns it; ``maps``: of every step, B * K rows each."""
        chosen_from = self.rows[row].tolist()
        return Hypothesis(
            ids=tuple(self.ids[row, 1:].tolist()),
            log_probs=tuple(self.log_probs[row].tolist()),
            maps=tuple(of_step.select(at) for of_step, at in zip(maps, chosen_from, strict=True)),
            log_prob=log_prob,
            score=score,
            is_finished=is_finished,
        )


@torch.no_grad()
def beam_search(
    step: Step,
    state: DecoderState,
    memory: Memory,
    images: int,
    options: DecodingOptions,
    *,
    constraints: Sequence[Constraint] = (),
    scorer: Scorer | None = None,
) -> list[list[Hypothesis]]:
    """The best captions of each image of a batch.

    An image is done when ``beam_size`` of its hypotheses have ended; the rest of the batch does not change
    its result. Hypotheses cut off at ``max_length`` are returned only where too few have ended.

    Args:
        step: from the last ids (B * K,), the state and the memory to the next logits; row b * K + k is beam
            k of image b.
        state: of the B * K rows before the first word, the same for all beams of an image.
        memory: of the B * K rows.
        images: B.
        options: beam size, limits and weights; ``max_length`` must be set.
        constraints: rule out words at every step.
        scorer: adds to the score of each hypothesis.

    Returns:
        For each image ``num_captions`` different hypotheses (fewer only if no more exist), best first:
        finished before unfinished, then by score.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    assert options.max_length is not None  # set by Captioner.resolve
    size, device = options.beam_size, state.hidden.device
    start = torch.full((images * size, 1), Vocabulary.start_id, device=device)
    beams = _Beams(start, torch.empty(images * size, 0, device=device), start[:, :0])
    # All beams start equal, so only the first is alive, or all would find the same.
    totals = torch.full((images, size), -torch.inf, device=device)  # (B, K) log-probabilities
    totals[:, 0] = 0.0
    kept = totals  # (B, K) scores
    found: list[list[Hypothesis]] = [[] for _ in range(images)]
    maps: list[AttentionMaps] = []
    for length in range(options.max_length + 1):
        out = step(beams.ids[:, -1], state, memory)
        check_finite(out.logits)
        log_probs = allowed_log_probs(out.logits, is_first=length == 0)  # (B * K, V)
        for constraint in constraints:
            log_probs = constraint(log_probs, beams.ids)
        sums, parents, words = _candidates(totals, log_probs)  # (B, 2K) each
        scores = sums / (length + 1) ** options.length_penalty
        if scorer is not None:
            scores = scores + _added_scores(scorer, beams.ids, parents, words).to(scores)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        sums, parents, words = (tensor.gather(1, order) for tensor in (sums, parents, words))
        rows = parents + torch.arange(images, device=device).unsqueeze(1) * size  # (B, 2K)
        _collect_finished(found, beams, maps, scores, sums, rows, words)
        if length == options.max_length or all(len(ended) >= size for ended in found):
            break
        kept, best = scores.masked_fill(words == Vocabulary.end_id, -torch.inf).topk(size)  # (B, K)
        totals, rows, words = (tensor.gather(1, best) for tensor in (sums, rows, words))
        state = out.state.select(rows.flatten())
        chosen = log_probs[rows.flatten(), words.flatten()]
        beams = beams.extended(rows.flatten(), words.flatten(), chosen)
        maps.append(out.maps)
    _add_unfinished(found, beams, maps, kept, totals)
    for ended in found:
        ended.sort(key=lambda one: (one.is_finished, one.score), reverse=True)
    return [ended[: options.num_captions] for ended in found]


def check_finite(logits: Tensor) -> None:
    """Check that logits can be decoded.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    if not logits.isfinite().all():
        raise NonFiniteError("The network's output is not finite (NaN or infinite); use another checkpoint.")


def _candidates(totals: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 2K best continuations of each image, best first: log-probability, parent beam, word; (B, 2K) each.

    At most K of them end a caption, one per beam, so at least K continue.
    """
    images, size = totals.shape
    vocabulary = log_probs.shape[1]
    sums = (totals.unsqueeze(2) + log_probs.view(images, size, vocabulary)).flatten(1)  # (B, K * V)
    sums, index = sums.topk(2 * size)
    return sums, index // vocabulary, index % vocabulary


def _added_scores(scorer: Scorer, ids: Tensor, parents: Tensor, words: Tensor) -> Tensor:
    """The scorer's score of each continuation, (B, 2K)."""
    prefixes = ids.view(len(parents), -1, ids.shape[1])[:, :, 1:].tolist()  # B lists of K
    by_image = enumerate(zip(prefixes, parents.tolist(), words.tolist(), strict=True))
    return torch.tensor(
        [
            [scorer(image, (*before[beam], word)) for beam, word in zip(beams, ends, strict=True)]
            for image, (before, beams, ends) in by_image
        ]
    )


def _collect_finished(
    found: list[list[Hypothesis]],
    beams: _Beams,
    maps: Sequence[AttentionMaps],
    scores: Tensor,
    sums: Tensor,
    rows: Tensor,
    words: Tensor,
) -> None:
    """Collect the hypotheses that end here; an end counts only if it is among the K best."""
    size = len(beams.ids) // len(found)
    is_end = (words[:, :size] == Vocabulary.end_id) & scores[:, :size].isfinite()
    for image, position in is_end.nonzero().tolist():
        if len(found[image]) < size:
            at = image, position
            row, log_prob, score = int(rows[at]), float(sums[at]), float(scores[at])
            one = beams.hypothesis(row, maps, log_prob=log_prob, score=score, is_finished=True)
            found[image].append(one)


def _add_unfinished(
    found: list[list[Hypothesis]], beams: _Beams, maps: Sequence[AttentionMaps], kept: Tensor, totals: Tensor
) -> None:
    """Fill up each image's hypotheses with those still in the beam, best first."""
    size = kept.shape[1]
    for image, (ended, scores, sums) in enumerate(zip(found, kept.tolist(), totals.tolist(), strict=True)):
        finished = {one.ids for one in ended}
        for beam, (score, log_prob) in enumerate(zip(scores, sums, strict=True)):
            if len(ended) < size and score > -torch.inf:
                row = image * size + beam
                one = beams.hypothesis(row, maps, log_prob=log_prob, score=score, is_finished=False)
                ended += [one] if one.ids not in finished else []
