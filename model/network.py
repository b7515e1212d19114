"""Encoder, annotations and decoder put together, and the teacher-forced reading of known captions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import Look, Memory
from model.config import ModelConfig
from model.decoder import Decoder
from model.encoder import Encoder
from model.phrases import PhraseHead

# Ended captions leave the batch so many at a time: a matrix product of a size not met before has to be
# prepared anew on a CPU, which costs more than a few rows too many.
ROW_STEP = 32

LONGEST_WAVE = 10_000.0  # of the position code, as in Vaswani et al.


class Reading(NamedTuple):
    """What the decoder said while reading known captions."""

    logits: Tensor  # (words, V): time-major over the captions still running, see CaptionNetwork.read
    looks: Look  # (N, T, ...), see Look.stack for what stands after the end of a caption


class CaptionNetwork(nn.Module):
    """The whole network: photos to features, features to annotations, annotations to words."""

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

    def remember(self, images: Tensor, *, draw_seed: int | None = None) -> Memory:
        """Photos (B, 3, S, S) as memory, one row a photo; see ``Decoder.remember``."""
        return self.remember_features(self.encoder(images), draw_seed=draw_seed)

    def remember_features(self, features: Tensor, *, draw_seed: int | None = None) -> Memory:
        """Features that ``encoder`` made of B photos as the decoder's memory, one row a photo."""
        return self.decoder.remember(self.grid_layers(self.project(features)), draw_seed=draw_seed)

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


class Projection(nn.Sequential):
    """Annotations on the last grid: features projected and normalized.

    They train in about half the time of raw features: keys and queries start on one scale, so the attention
    depends on the query from the first step on.
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__(nn.Linear(encoder.feature_dim, width), nn.LayerNorm(width))


class JoinedProjection(nn.Module):
    """Annotations on a joined grid: the last grid's features, blended over it, with each cell's own.

    As in a feature pyramid (Lin et al. 2017, arXiv 1612.03144): what the last grid knows is added to the
    finer one. The finer grid's share begins at zero, so that training begins as if it were not there: with a
    random one, captions learn more slowly for a long time.
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.shape = (encoder.rows // 2, encoder.columns // 2)  # of the last grid
        self.widths = [encoder.feature_dim, 4 * encoder.fine_dim]
        self.last_layer = nn.Linear(encoder.feature_dim, width)
        self.fine_layer = nn.Linear(encoder.fine_dim, width, bias=False)
        nn.init.zeros_(self.fine_layer.weight)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, L / 4, F + 4 F') as ``Encoder`` joins them, as annotations (B, L, D)."""
        last, four = torch.split(features, self.widths, dim=2)
        coarse = self._as_picture(self.last_layer(last))
        blended = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        fine = nn.functional.pixel_shuffle(self._as_picture(four), 2)  # (B, F', rows, columns)
        own = self.fine_layer(fine.flatten(2).transpose(1, 2))  # (B, L, D)
        annotations: Tensor = self.norm(blended.flatten(2).transpose(1, 2) + own)
        return annotations

    def _as_picture(self, cells: Tensor) -> Tensor:
        """(B, L / 4, C) to (B, C, rows / 2, columns / 2)."""
        return cells.transpose(1, 2).reshape(len(cells), -1, *self.shape)


class GridLayers(nn.Module):
    """Layers in which every location gathers from all others: Vaswani et al. 2017 (1706.03762), section 3.1.

    Each layer normalizes first (Xiong et al. 2020, arXiv 2002.04745), which trains without a long warm-up.
    A map over annotations that went through such layers says less of where the evidence was: each holds
    some of the others.
    """

    position_code: Tensor

    def __init__(self, config: ModelConfig, rows: int, columns: int) -> None:
        super().__init__()
        width = config.annotation_dim
        layer = nn.TransformerEncoderLayer(
            width,
            config.attention_heads,
            dim_feedforward=2 * width,
            dropout=config.dropout,
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(width)
        self.layers = nn.TransformerEncoder(layer, config.grid_layers, norm=norm, enable_nested_tensor=False)
        self.register_buffer("position_code", position_code(rows, columns, width), persistent=False)

    def forward(self, annotations: Tensor) -> Tensor:
        """Annotations (B, L, D) as annotations (B, L, D)."""
        gathered: Tensor = self.layers(annotations + self.position_code)
        return gathered


def position_code(rows: int, columns: int, width: int) -> Tensor:
    """Where every location is, (L, width): half of the code the row in sines and cosines, half the column."""
    assert width % 4 == 0, width
    waves = LONGEST_WAVE ** -torch.linspace(0, 1, width // 4)  # (width / 4,)
    row, column = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).unbind(1)  # (L,) each
    angles = [side.unsqueeze(1) * waves for side in (row, column)]  # (L, width / 4) each
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
