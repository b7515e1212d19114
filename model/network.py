"""Encoder, annotations and decoder put together, and the teacher-forced reading of known captions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import Look, Memory
from model.config import ModelConfig
from model.decoder import Decoder
from model.encoder import Encoder
from model.endings import EndingTable
from model.evidence import WordDetector
from model.grid import GridLayers, JoinedProjection, Projection
from model.phrases import PhraseHead

# Ended captions leave the batch so many at a time: a matrix product of a size not met before has to be
# prepared anew on a CPU, which costs more than a few rows too many.
ROW_STEP = 32


class Reading(NamedTuple):
    """What the decoder said while reading known captions."""

    logits: Tensor  # (words, V): time-major over the captions still running, see CaptionNetwork.read
    looks: Look  # (N, T, ...), see Look.stack for what stands after the end of a caption


class CaptionNetwork(nn.Module):
    """The whole network: photographs to features, features to annotations, annotations to words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, config.image_size, config.grid)
        rows, columns = self.encoder.rows, self.encoder.columns
        self.project = (
            JoinedProjection(self.encoder, config.annotation_dim)
            if self.encoder.fine_dim
            else Projection(self.encoder, config.annotation_dim)
        )
        self.grid_layers = GridLayers(config, rows, columns) if config.grid_layers else nn.Identity()
        self.decoder = Decoder(config, rows, columns)
        self.phrases = (
            PhraseHead(self.encoder.feature_shape[1], config.phrases, config.phrase_dim)
            if config.phrases
            else None
        )
        self.evidence = (
            WordDetector(self.encoder.feature_shape[1], config.evidence, config.evidence_dim)
            if config.evidence
            else None
        )
        self.endings = EndingTable(config.endings) if config.endings else None
        self._vocabulary_size = config.vocabulary_size

    def remember(self, images: Tensor, *, draw_seed: int | None = None) -> Memory:
        """Photographs (B, 3, S, S) as memory, one row a photograph; see ``Decoder.remember``."""
        return self.remember_features(self.encoder(images), draw_seed=draw_seed)

    def remember_features(self, features: Tensor, *, draw_seed: int | None = None) -> Memory:
        """Features that ``encoder`` made of B photographs as the decoder's memory, one row a photograph."""
        annotations = self.grid_layers(self.project(features))
        evidence = self.evidence.evidence(features, self._vocabulary_size) if self.evidence else None
        return self.decoder.remember(annotations, draw_seed=draw_seed, evidence=evidence)

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
        logits, looks = [], []
        for t in range(int(lengths[0])):
            running = int((lengths > t).sum())  # these captions come first
            rows = min(len(state.hidden), -(-running // ROW_STEP) * ROW_STEP)
            if rows < len(state.hidden):
                memory, state = memory.select(slice(rows)), state.select(slice(rows))
            step = self.decoder.step(captions[:rows, t], state, memory)
            state = step.state
            logits.append(step.logits[:running])
            looks.append(step.look.select(slice(running)))
        return Reading(torch.cat(logits), Look.stack(looks, len(captions)))
