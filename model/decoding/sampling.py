"""Sampling of captions, word by word, for self-critical training."""

import torch
from torch import Tensor

from model.attention import Memory
from model.decoder import DecoderState, Step
from model.decoding.constraints import allowed_log_probs
from model.vocabulary import Vocabulary

# Rows of finished captions are dropped when less than this share of the rows is unfinished: dropping costs
# time too.
MIN_UNFINISHED = 0.75


@torch.no_grad()
def sample(
    step: Step,
    state: DecoderState,
    memory: Memory,
    *,
    max_length: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """One caption per row, each word sampled with the probability the decoder gives it.

    Args:
        step: from the last ids (N,), the state and the memory to the next logits.
        state: of N rows before the first word.
        memory: of N rows.
        max_length: words, the end token not counted.
        temperature: divides the logits, above 0; below 1 favours likely words.
        generator: source of randomness; None: torch's own.

    Returns:
        For each row its ids, the end token last unless the caption was cut off at ``max_length``.
    """
    ids = torch.full((len(state.hidden),), Vocabulary.start_id, device=state.hidden.device)
    captions: list[list[int]] = [[] for _ in ids]
    rows = list(range(len(ids)))  # the caption of each row; -1: finished
    for length in range(max_length + 1):
        out = step(ids, state, memory)
        ids = _sample_ids(allowed_log_probs(out.logits / temperature, is_first=length == 0), generator)
        words = ids.tolist()
        for row, word in zip(rows, words, strict=True):
            if row >= 0 and (length < max_length or word == Vocabulary.end_id):
                captions[row].append(word)
        rows = [-1 if word == Vocabulary.end_id else row for row, word in zip(rows, words, strict=True)]
        unfinished = [index for index, row in enumerate(rows) if row >= 0]
        if not unfinished:
            break
        state = out.state
        if len(unfinished) < MIN_UNFINISHED * len(rows):
            kept = torch.tensor(unfinished, device=ids.device)
            ids, state, memory = ids[kept], state.select(kept), memory.select(kept)
            rows = [rows[index] for index in unfinished]
    return captions


def _sample_ids(log_probs: Tensor, generator: torch.Generator | None) -> Tensor:
    """An id per row of (N, V)."""
    cumulative = log_probs.exp().cumsum(dim=1)  # (N, V)
    at = torch.rand((len(log_probs), 1), generator=generator, device=log_probs.device) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, at, right=True).clamp_max(log_probs.shape[1] - 1).squeeze(1)
