"""The whole network: encoder, annotations and decoder, and the teacher-forced pass over known captions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import AttentionMaps, Memory
from model.confidence import ConfidenceModel
from model.config import ModelConfig
from model.decoder import Decoder
from model.encoder import Encoder
from model.endings import EndingTable
from model.evidence import WordDetector
from model.labels import LabelHead
from model.phrases import PhraseHead

# Finished captions leave the batch in multiples of so many rows: a CPU prepares each new size of a matrix
# product anew, which costs more than a few superfluous rows.
ROW_STEP = 32

MAX_WAVELENGTH = 10_000.0  # of the positional encoding, as in Vaswani et al.


class TeacherForced(NamedTuple):
    """The decoder's output for known captions."""

    logits: Tensor  # (words, V): time-major over unfinished captions, see CaptionNetwork.teacher_force
    maps: AttentionMaps  # (N, T, ...), see AttentionMaps.stack for the padding of finished captions


class CaptionNetwork(nn.Module):
    """From images to features, from features to annotations, from annotations to words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder, config.image_size, config.grid)
        rows, columns = self.encoder.rows, self.encoder.columns
        projection = JoinedProjection if self.encoder.fine_dim else Projection
        self.project = projection(self.encoder, config.annotation_dim)
        self.grid_layers = GridLayers(config, rows, columns) if config.grid_layers else nn.Identity()
        self.decoder = Decoder(config, rows, columns)
        self.phrases: PhraseHead | None = None
        if config.phrases:
            self.phrases = PhraseHead(self.encoder.feature_shape[1], config.phrases, config.phrase_dim)
        self.evidence: WordDetector | None = None
        if config.evidence:
            self.evidence = WordDetector(self.encoder.feature_shape[1], config.evidence, config.evidence_dim)
        self.labels: LabelHead | None = None
        if config.labels:
            self.labels = LabelHead(self.encoder.feature_shape[1], config.labels, config.label_dim)
        self.endings = EndingTable(config.endings) if config.endings else None
        self.confidence: ConfidenceModel | None = None
        if config.confidence:
            self.confidence = ConfidenceModel(config.confidence, config.object_names)

    def encode(self, images: Tensor) -> Memory:
        """Images (B, 3, S, S) as the decoder's memory, one row an image."""
        return self.encode_features(self.encoder(images))

    def encode_features(self, features: Tensor) -> Memory:
        """The encoder's features of B images as the decoder's memory, one row an image."""
        annotations = self.grid_layers(self.project(features))
        words = self.decoder.output.out_features
        evidence = self.evidence.evidence(features, words) if self.evidence else None
        return self.decoder.prepare(annotations, evidence=evidence)

    def teacher_force(self, memory: Memory, captions: Tensor, lengths: Tensor) -> TeacherForced:
        """Teacher forcing: each step is fed the true previous word, whatever the network predicted.

        Args:
            memory: one row per caption.
            captions: (N, T), ids of the words to feed, the start token first; longest caption first.
            lengths: (N,), the number of words to feed of each caption, in descending order, on the CPU.

        Returns:
            Logits in the order of ``torch.nn.utils.rnn.pack_padded_sequence(..., batch_first=True)``,
            without those of finished captions; and the maps.
        """
        assert bool((lengths[:-1] >= lengths[1:]).all()), "captions must come longest first"
        state = self.decoder.initial_state(memory)
        logits, maps = [], []
        for t in range(int(lengths[0])):
            unfinished = int((lengths > t).sum())  # these captions come first
            rows = min(len(state.hidden), -(-unfinished // ROW_STEP) * ROW_STEP)
            if rows < len(state.hidden):
                memory, state = memory.select(slice(rows)), state.select(slice(rows))
            out = self.decoder.step(captions[:rows, t], state, memory)
            state = out.state
            logits.append(out.logits[:unfinished])
            maps.append(out.maps.select(slice(unfinished)))
        return TeacherForced(torch.cat(logits), AttentionMaps.stack(maps, len(captions)))


class Projection(nn.Sequential):
    """Features of the last grid as annotations: projected and normalized.

    These train in about half the time of raw features: keys and queries start on one scale, so the attention
    depends on the query from the first step.
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__(nn.Linear(encoder.feature_dim, width), nn.LayerNorm(width))


class JoinedProjection(nn.Module):
    """Features of a joined grid as annotations: the last grid's, upsampled, plus each cell's own.

    As in a feature pyramid (Lin et al. 2017, arXiv 1612.03144). The finer grid's layer is initialized to
    zero, so that training starts from the last grid alone: from random weights, captions learn more slowly
    for a long time.
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
        """Features (B, L / 4, F + 4 F') as ``Encoder`` joins them, to annotations (B, L, D)."""
        last, four = torch.split(features, self.widths, dim=2)
        coarse = self._to_grid(self.last_layer(last))
        upsampled = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        fine = nn.functional.pixel_shuffle(self._to_grid(four), 2)  # (B, F', rows, columns)
        own = self.fine_layer(fine.flatten(2).transpose(1, 2))  # (B, L, D)
        annotations: Tensor = self.norm(upsampled.flatten(2).transpose(1, 2) + own)
        return annotations

    def _to_grid(self, cells: Tensor) -> Tensor:
        """(B, L / 4, C) to (B, C, rows / 2, columns / 2)."""
        return cells.transpose(1, 2).reshape(len(cells), -1, *self.shape)


class GridLayers(nn.Module):
    """Transformer encoder layers over the grid: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1.

    Pre-norm (Xiong et al. 2020, arXiv 2002.04745), which trains without a long warm-up. Attention maps after
    such layers say less about where the evidence was, since each annotation mixes in others.
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
        """Annotations (B, L, D) to annotations (B, L, D)."""
        mixed: Tensor = self.layers(annotations + self.position_code)
        return mixed


def position_code(rows: int, columns: int, width: int) -> Tensor:
    """Sinusoidal positional encoding of a grid, (L, width): one half encodes the row, one half the column."""
    assert width % 4 == 0, width
    waves = MAX_WAVELENGTH ** -torch.linspace(0, 1, width // 4)  # (width / 4,)
    row, column = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).unbind(1)  # (L,) each
    angles = [side.unsqueeze(1) * waves for side in (row, column)]  # (L, width / 4) each
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
