"""The captioner: pictures in, captions with their attention out. The one thing that captions.

HTTP, batch, validation and evaluation all call ``Captioner.caption``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from model.checkpoint import CheckpointInfo, load_checkpoint
from model.config import ModelConfig
from model.decoder import DecoderState, DecoderStep
from model.errors import OptionsError
from model.network import CaptionNetwork
from model.preprocess import Preprocess
from model.record import Caption, Grid, Word
from model.search import DecodingOptions, Hypothesis, beam_search
from model.vocabulary import Vocabulary, detokenize

# Photographs encoded and searched for at once; beyond this a CPU gains nothing and memory grows.
BATCH_SIZE = 32


class Captioner:
    """A trained network with its vocabulary and preprocessing. Safe to share between threads."""

    def __init__(
        self, network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary, info: CheckpointInfo
    ) -> None:
        """Most callers want ``Captioner.load``. Puts ``network`` into evaluation mode."""
        assert len(vocabulary) == config.vocabulary_size
        self.network = network.eval()
        self.config = config
        self.vocabulary = vocabulary
        self.info = info
        self._preprocess = Preprocess(config)
        self._grid = self._preprocess.grid(network.encoder.rows, network.encoder.columns)
        self._device = next(network.parameters()).device

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Self:
        """The captioner in a checkpoint folder, on a device as torch names it.

        Raises:
            CheckpointError: the folder is missing, damaged, or holds no checkpoint.
            OptionsError: there is no such device.
        """
        check_device(device)
        checkpoint = load_checkpoint(Path(folder))
        network = checkpoint.network.to(device)
        return cls(network, checkpoint.config, checkpoint.vocabulary, checkpoint.info)

    def caption(
        self, images: Sequence[Image.Image], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        """Captions of photographs, with the attention of every word.

        Args:
            images: upright RGB pictures of any size, as ``open_image`` gives them.
            options: beam size, number of captions, lengths.

        Returns:
            For each photograph its captions, best first. A photograph gets the same captions alone
            and in any company.

        Raises:
            ImageError: a picture is not RGB.
        """
        options = options or DecodingOptions()
        captions: list[list[Caption]] = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.stack([self._preprocess(image) for image in images[start : start + BATCH_SIZE]])
            captions += self._caption_batch(batch.to(self._device), options)
        return captions

    @torch.inference_mode()
    def _caption_batch(self, images: Tensor, options: DecodingOptions) -> list[list[Caption]]:
        memory = self.network.remember(images)  # (B, L, D)
        memory = memory.select(
            torch.arange(len(images), device=images.device).repeat_interleave(options.beam_size)
        )
        decoder = self.network.decoder

        def step(ids: Tensor, state: DecoderState) -> DecoderStep:
            return decoder.step(ids, state, memory)

        found = beam_search(step, decoder.initial_state(memory), len(images), options)
        return [[self._as_caption(hypothesis) for hypothesis in hypotheses] for hypotheses in found]

    def _as_caption(self, hypothesis: Hypothesis) -> Caption:
        words = self.vocabulary.decode(hypothesis.ids)
        seen = zip(words, hypothesis.log_probs, hypothesis.betas, hypothesis.alphas, strict=True)
        return Caption(
            text=detokenize(words),
            log_prob=hypothesis.log_prob,
            words=tuple(
                Word(word=word, log_prob=log_prob, beta=beta, attention=_on_grid(alpha, self._grid))
                for word, log_prob, beta, alpha in seen
            ),
            grid=self._grid,
            is_finished=hypothesis.is_finished,
        )


def check_device(name: str) -> None:
    """Refuse what is no torch device of this machine.

    Raises:
        OptionsError: it is not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # the latter from a torch built without that kind of device
        raise OptionsError(f"There is no device {name!r} here; 'cpu' always works.") from None


def _on_grid(alpha: Tensor, grid: Grid) -> tuple[tuple[float, ...], ...]:
    """Attention weights (L,) as rows x columns."""
    return tuple(tuple(row) for row in alpha.view(grid.rows, grid.columns).tolist())
