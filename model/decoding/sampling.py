"""Captions drawn word by word, as self-critical training compares them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.attention import Memory
from model.decoder import DecoderState, DecoderStep
from model.decoding.beam_search import allowed_log_probs
from model.vocabulary import Vocabulary

# Rows are let go when less than this share of them goes on.
KEPT = 0.75


@torch.no_grad()
def sample(
    step: Callable[[Tensor, DecoderState, Memory], DecoderStep],
    state: DecoderState,
    memory: Memory,
    *,
    max_length: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """One caption a row, each word drawn with the probability the decoder gives it.

    Args:
        step: from the last ids (N,), the state and the memory to the next logits.
        state: of N rows before the first word.
        memory: of N rows.
        max_length: words, the end token not counted.
        temperature: what logits are divided by, above 0; less than 1 favours the likely words.
        generator: draws; None: torch's own.

    Returns:
        For each row its ids, the end token last unless ``max_length`` cut it off.
    """
    ids = torch.full((len(state.hidden),), Vocabulary.start_id, device=state.hidden.device)
    captions: list[list[int]] = [[] for _ in ids]
    rows = list(range(len(ids)))  # whose captions go on
    for length in range(max_length + 1):
        out = step(ids, state, memory)
        ids = _draw(allowed_log_probs(out.logits / temperature, is_first=length == 0), generator)
        drawn = ids.tolist()
        for row, word in zip(rows, drawn, strict=True):
            if row >= 0 and (length < max_length or word == Vocabulary.end_id):
                captions[row].append(word)
        rows = [-1 if word == Vocabulary.end_id else row for row, word in zip(rows, drawn, strict=True)]
        going = [place for place, row in enumerate(rows) if row >= 0]
        if not going:
            break
        state = out.state
        if len(going) < KEPT * len(rows):  # the rest only cost time; so does every selection
            at = torch.tensor(going, device=ids.device)
            ids, state, memory = ids[at], state.select(at), memory.select(at)
            rows = [rows[place] for place in going]
    return captions


def _draw(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """An id for each row of (N, V)."""
    below = log_probs.exp().cumsum(dim=1)  # (N, V)
    where = torch.rand((len(below), 1), generator=generator, device=below.device) * below[:, -1:]
    return torch.searchsorted(below, where, right=True).clamp_max(below.shape[1] - 1).squeeze(1)
