"""Encoder, annotations and decoder put together, and the teacher-forced reading of known captions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.decoder import Decoder, Memory
from model.encoder import Encoder

# Ended captions leave the batch so many at a time: a matrix product of a size not met before has to be
# prepared anew on a CPU, which costs more than a few rows too many.
ROW_STEP = 32


class Reading(NamedTuple):
    """What the decoder said while reading known captions."""

    logits: Tensor  # (words, V): time-major over the captions still running, see CaptionNetwork.read
    alphas: Tensor  # (N, T, L), zero after the end of a caption


class CaptionNetwork(nn.Module):
    """The whole network: photographs to features, features to annotations, annotations to words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, config.image_size)
        # Projected and normalized annotations train in about half the time of raw features: keys and
        # queries start on one scale, so the attention depends on the query from the first step on.
        self.project = nn.Sequential(
            nn.Linear(self.encoder.feature_dim, config.annotation_dim), nn.LayerNorm(config.annotation_dim)
        )
        self.decoder = Decoder(config)

    def remember(self, images: Tensor) -> Memory:
        """Photographs (B, 3, S, S) as the decoder's memory, one row a photograph."""
        return self.remember_features(self.encoder(images))

    def remember_features(self, features: Tensor) -> Memory:
        """Features (B, L, F) that ``encoder`` made as the decoder's memory, one row a photograph."""
        return self.decoder.remember(self.project(features))

    def read(self, memory: Memory, captions: Tensor, lengths: Tensor) -> Reading:
        """Teacher forcing: at each step the true previous word goes in, whatever was predicted.

        Args:
            memory: one row a caption.
            captions: (N, T) ids of the words to feed, the start token first; longest caption first.
            lengths: (N,) how many words of each to feed, never increasing, on the CPU.

        Returns:
            Logits in the order of ``torch.nn.utils.rnn.pack_padded_sequence(..., batch_first=True)``:
            what a step says of captions that have ended is left out.
        """
        assert bool((lengths[:-1] >= lengths[1:]).all()), "captions must come longest first"
        state = self.decoder.initial_state(memory)
        logits, alphas = [], []
        for t in range(int(lengths[0])):
            running = int((lengths > t).sum())  # these captions come first
            rows = min(len(state.hidden), -(-running // ROW_STEP) * ROW_STEP)
            if rows < len(state.hidden):
                memory, state = memory.select(slice(rows)), state.select(slice(rows))
            step = self.decoder.step(captions[:rows, t], state, memory)
            state = step.state
            logits.append(step.logits[:running])
            alphas.append(nn.functional.pad(step.alpha[:running], (0, 0, 0, len(captions) - running)))
        return Reading(torch.cat(logits), torch.stack(alphas, dim=1))
