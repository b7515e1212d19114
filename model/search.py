"""Beam search over many photographs at once.

Knows ids, rows and log-probabilities; not words, pictures or what the state of a decoder is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.attention import Look
from model.config import MOST_TOKENS
from model.decoder import DecoderState, DecoderStep
from model.endings import Endings
from model.errors import OptionsError
from model.repeats import without_repeats
from model.vocabulary import Vocabulary

StepFunction = Callable[[Tensor, DecoderState], DecoderStep]

# What speaks for a caption with its end token, or a beginning, beside its probability: from the place of a
# photograph and the ids.
JudgeFunction = Callable[[int, tuple[int, ...]], float]

# Ids that say nothing in a caption and are never emitted.
BANNED_IDS = (Vocabulary.pad_id, Vocabulary.start_id, Vocabulary.unk_id)

MAX_BEAM_SIZE = 10


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How captions are searched for."""

    beam_size: int = 3  # K: hypotheses kept per photograph, 1 (greedy) to 10
    num_captions: int = 1  # captions returned per photograph, 1 to beam_size
    max_length: int | None = None  # tokens, the end not counted, 1 to 200; None: the checkpoint's own
    length_penalty: float = 0.7  # hypotheses rank by log_prob / length ** this; 0 to 2, chosen on val
    phrase_weight: float = 1.25  # times PhraseJudge.agreement, added to that; 0 to 100, chosen on val
    allow_repeats: bool = False  # may a caption say a pair of words twice that do not merely link others
    draw_seed: int | None = None  # lets an attention that can draw where it looks do so; None: it never does

    def __post_init__(self) -> None:
        """Refuse values outside their range.

        Raises:
            OptionsError: one sentence naming the option, its value and its range.
        """
        for name, low, high in (
            ("beam_size", 1, MAX_BEAM_SIZE),
            ("num_captions", 1, self.beam_size),
            ("max_length", 1, MOST_TOKENS),
        ):
            value = getattr(self, name)
            if name == "max_length" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                limit = f"{high} (the beam size)" if name == "num_captions" else str(high)
                raise OptionsError(f"{name} is {value!r}; it must be a whole number from {low} to {limit}.")
        if self.draw_seed is not None and (type(self.draw_seed) is not int or self.draw_seed < 0):
            raise OptionsError(f"draw_seed is {self.draw_seed!r}; it must be a whole number from 0, or None.")
        if not 0 <= self.length_penalty <= 2:
            raise OptionsError(f"length_penalty is {self.length_penalty!r}; it must be a number from 0 to 2.")
        if not 0 <= self.phrase_weight <= 100:
            raise OptionsError(f"phrase_weight is {self.phrase_weight!r}; it must be a number from 0 to 100.")


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One caption the search found, as ids, with what the decoder saw at each of its words."""

    ids: tuple[int, ...]  # the end token left out
    log_probs: tuple[float, ...]  # one a word
    looks: tuple[Look, ...]  # one a word, without the dimension of rows
    log_prob: float  # of the words and, if finished, of the end token
    is_finished: bool


class _Move(NamedTuple):
    """One step of all beams: which hypothesis each row continues, and with what."""

    parents: Tensor  # (B, K) beam of the step before, 0 to K - 1
    ids: Tensor  # (B, K) the word appended
    log_probs: Tensor  # (B, K) of that word alone
    look: Look  # of that word, B * K rows


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """Where a hypothesis stopped: enough to rank it, and to read it backwards."""

    beam: int
    length: int  # words
    log_prob: float
    score: float  # log_prob / tokens ** length_penalty, the end counted, plus what was judged
    is_finished: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """Sorts finished before unfinished, then by score."""
        return self.is_finished, self.score


@torch.no_grad()
def beam_search(
    step: StepFunction,
    state: DecoderState,
    photographs: int,
    options: DecodingOptions,
    linking: frozenset[int] | None = None,
    allowed: Endings | None = None,
    judge: JudgeFunction | None = None,
) -> list[list[Hypothesis]]:
    """The best captions of several photographs, searched for at once.

    A photograph is done when ``beam_size`` hypotheses have ended; what the others of the batch still
    do does not change its result. Hypotheses cut at ``max_length`` only fill up what is missing.

    Args:
        step: from the last ids (B * K,) and the state to the next logits; row b * K + k is beam k of
            photograph b.
        state: of the B * K rows before the first word, equal within a photograph.
        photographs: B.
        options: sizes and limits of the search; they name a ``max_length``.
        linking: ids of which pairs may come twice in a caption, where no other pair may; None: all may.
        allowed: which captions may end; None: all.
        judge: has a say in which beginnings go on and which captions are best; None: nothing has.

    Returns:
        For each photograph ``num_captions`` different hypotheses (fewer only if there are no more),
        best first: finished before unfinished, then by log_prob / length ** length_penalty, where the
        length counts the end token, plus what ``judge`` says.
    """
    assert options.max_length is not None  # Captioner.settled put the checkpoint's own there
    beams, device = options.beam_size, state.hidden.device
    ids = torch.full((photographs * beams,), Vocabulary.start_id, device=device)
    # All beams start equal: only the first is alive, or all of them would say the same.
    totals = torch.full((photographs, beams), -torch.inf, device=device)  # (B, K)
    totals[:, 0] = 0.0
    kept = totals  # (B, K) scores of the beams
    endings: list[list[_Ending]] = [[] for _ in range(photographs)]
    moves: list[_Move] = []
    history = ids.unsqueeze(1)  # (B * K, 1 + words so far)
    for length in range(options.max_length + 1):
        out = step(ids, state)
        log_probs = allowed_log_probs(out.logits, is_first=length == 0)  # (B * K, V)
        if linking is not None:
            log_probs = without_repeats(log_probs, history, linking)
        if allowed is not None:
            log_probs = allowed.forbid(log_probs, history[:, 1:].tolist())
        sums, parents, words = _candidates(totals, log_probs)  # (B, 2K) each
        scores = sums / (length + 1) ** options.length_penalty + _judged(judge, history, sums, parents, words)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        sums, parents, words = (tensor.gather(1, order) for tensor in (sums, parents, words))
        _note_endings(endings, scores, sums, parents, words, length, beams)
        if length == options.max_length or all(len(found) >= beams for found in endings):
            break
        kept, best = scores.masked_fill(words == Vocabulary.end_id, -torch.inf).topk(beams)  # (B, K)
        totals, parents, words = (tensor.gather(1, best) for tensor in (sums, parents, words))
        rows = (parents + torch.arange(photographs, device=device).unsqueeze(1) * beams).flatten()
        moves.append(_move(out, log_probs, parents, words, rows))
        ids, state = words.flatten(), out.state.select(rows)
        history = torch.cat((history[rows], ids.unsqueeze(1)), dim=1)
    _note_unfinished(endings, kept, totals, len(moves))
    return [_best(found, moves, photograph, options) for photograph, found in enumerate(endings)]


def allowed_log_probs(logits: Tensor, *, is_first: bool) -> Tensor:
    """Log-probabilities over what may be emitted; a caption has at least one word."""
    banned = [*BANNED_IDS, Vocabulary.end_id] if is_first else [*BANNED_IDS]
    logits = logits.float().index_fill(1, torch.tensor(banned, device=logits.device), -torch.inf)
    return logits.log_softmax(dim=1)


def _candidates(totals: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 2K best continuations of each photograph, best first: score, beam they continue, word.

    At most K of them can be ends, one a beam, so K that go on always remain.
    """
    photographs, beams = totals.shape
    vocabulary = log_probs.shape[1]
    scores = (totals.unsqueeze(2) + log_probs.view(photographs, beams, vocabulary)).flatten(1)  # (B, K * V)
    scores, index = scores.topk(2 * beams)
    return scores, index // vocabulary, index % vocabulary


def _judged(
    judge: JudgeFunction | None, history: Tensor, sums: Tensor, parents: Tensor, words: Tensor
) -> Tensor:
    """What is said of each continuation, (B, 2K)."""
    if judge is None:
        return torch.zeros_like(sums)
    said = history[:, 1:].tolist()  # B * K beginnings
    beams = len(said) // len(sums)

    def number(photograph: int, beam: int, word: int) -> float:
        return judge(photograph, (*said[photograph * beams + beam], word))

    rows = enumerate(zip(parents.tolist(), words.tolist(), strict=True))
    return sums.new_tensor(
        [[number(photograph, *pair) for pair in zip(*row, strict=True)] for photograph, row in rows]
    )


def _note_endings(
    endings: list[list[_Ending]],
    scores: Tensor,
    sums: Tensor,
    parents: Tensor,
    words: Tensor,
    length: int,
    beams: int,
) -> None:
    """Record the hypotheses that end here; an end counts only if it is among the K best."""
    is_ending = (words[:, :beams] == Vocabulary.end_id) & scores[:, :beams].isfinite()
    for photograph, rank in is_ending.nonzero().tolist():
        if len(endings[photograph]) < beams:
            ending = _Ending(
                beam=int(parents[photograph, rank]),
                length=length,
                log_prob=float(sums[photograph, rank]),
                score=float(scores[photograph, rank]),
                is_finished=True,
            )
            endings[photograph].append(ending)


def _note_unfinished(endings: list[list[_Ending]], kept: Tensor, totals: Tensor, length: int) -> None:
    """Let the hypotheses that are still running, best first, fill the places that no ending took."""
    for found, of_beams, sums in zip(endings, kept.tolist(), totals.tolist(), strict=True):
        ended = {ending.beam for ending in found if ending.length == length}  # they would be there twice
        running = [
            _Ending(beam=beam, length=length, log_prob=log_prob, score=score, is_finished=False)
            for beam, (score, log_prob) in enumerate(zip(of_beams, sums, strict=True))
            if score > -torch.inf and beam not in ended
        ]
        found += running[: len(sums) - len(found)]


def _move(out: DecoderStep, log_probs: Tensor, parents: Tensor, words: Tensor, rows: Tensor) -> _Move:
    chosen = log_probs[rows].gather(1, words.view(-1, 1)).view_as(parents)
    return _Move(parents, words, chosen, out.look.select(rows))


def _best(
    endings: list[_Ending], moves: list[_Move], photograph: int, options: DecodingOptions
) -> list[Hypothesis]:
    ranked = sorted(endings, key=lambda ending: ending.rank, reverse=True)
    return [_read_back(ending, moves, photograph) for ending in ranked[: options.num_captions]]


def _read_back(ending: _Ending, moves: list[_Move], photograph: int) -> Hypothesis:
    """Follow a hypothesis from its end to its beginning."""
    words = []
    beam = ending.beam
    for move in reversed(moves[: ending.length]):
        at = (photograph, beam)
        look = move.look.select(photograph * move.ids.shape[1] + beam)
        words.append((int(move.ids[at]), float(move.log_probs[at]), look))
        beam = int(move.parents[at])
    ids, log_probs, looks = zip(*reversed(words), strict=True)
    return Hypothesis(
        ids=ids,
        log_probs=log_probs,
        looks=looks,
        log_prob=ending.log_prob,
        is_finished=ending.is_finished,
    )
