"""The captioner: pictures in, captions with their attention out. The one thing that captions.

HTTP, batch, validation and evaluation all call ``Captioner.caption``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from model.attention import Look, Memory
from model.checkpoint import CheckpointInfo, load_checkpoint
from model.config import ModelConfig
from model.decoder import DecoderState, DecoderStep
from model.endings import Endings
from model.errors import OptionsError
from model.network import CaptionNetwork
from model.phrases import PhraseJudge
from model.preprocess import Preprocess
from model.record import Caption, Grid, Map, Word
from model.repeats import linking_ids
from model.search import DecodingOptions, Hypothesis, JudgeFunction, beam_search
from model.vocabulary import Vocabulary, detokenize

# Photographs encoded and searched for at once; beyond this a CPU gains nothing and memory grows.
BATCH_SIZE = 32

# What a stage of captioning, "encode" or "text", runs in; for those who want to know how long it takes.
Measure = Callable[[str], AbstractContextManager[None]]


def unmeasured(stage: str) -> AbstractContextManager[None]:
    """Does not measure ``stage``."""
    return nullcontext()


class Captioner:
    """A trained network with its vocabulary and preprocessing. Safe to share between threads."""

    def __init__(
        self, network: CaptionNetwork, config: ModelConfig, vocabulary: Vocabulary, info: CheckpointInfo
    ) -> None:
        """Most callers want ``Captioner.load``. Puts ``network`` into evaluation mode."""
        assert (len(vocabulary), vocabulary.tokens.kind) == (config.vocabulary_size, config.tokens)
        self.network = network.eval()
        self.config = config
        self.vocabulary = vocabulary
        self.info = info
        self._preprocess = Preprocess(config)
        self._grid = self._preprocess.grid(network.encoder.rows, network.encoder.columns)
        # Characters and pieces of words must come again, and are no words to end on.
        self._linking = linking_ids(vocabulary) if config.tokens == "words" else None
        self._endings = _endings(network, vocabulary) if config.tokens == "words" else None
        self._judge = PhraseJudge(network.phrases) if network.phrases else None
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
        self,
        images: Sequence[Image.Image],
        options: DecodingOptions | None = None,
        measure: Measure = unmeasured,
    ) -> list[list[Caption]]:
        """Captions of photographs, with the attention of every token, usually a word.

        Args:
            images: upright RGB pictures of any size, as ``open_image`` gives them.
            options: beam size, number of captions, lengths; see ``settled``.
            measure: what each stage runs in.

        Returns:
            For each photograph its captions, best first. A photograph gets the same captions alone
            and in any company.

        Raises:
            ImageError: a picture is not RGB.
        """
        options = self.settled(options or DecodingOptions())
        captions: list[list[Caption]] = []
        for start in range(0, len(images), BATCH_SIZE):
            captions += self._caption_batch(images[start : start + BATCH_SIZE], options, measure)
        return captions

    def settled(self, options: DecodingOptions) -> DecodingOptions:
        """The options, with this captioner's own longest caption where they name none."""
        if options.max_length is None:
            return replace(options, max_length=self.config.caption_length)
        return options

    @torch.inference_mode()
    def _caption_batch(
        self, images: Sequence[Image.Image], options: DecodingOptions, measure: Measure
    ) -> list[list[Caption]]:
        with measure("encode"):
            batch = torch.stack([self._preprocess(image) for image in images]).to(self._device)
            features = self.network.encoder(batch)  # (B, L, F)
            memory = self.network.remember_features(features, draw_seed=options.draw_seed)  # (B, L, D)
            judge = self._judging(features, options.phrase_weight)
        with measure("text"):
            return self._search(memory, len(batch), options, judge)

    def _judging(self, features: Tensor, weight: float) -> JudgeFunction | None:
        """What speaks for a caption of one of these photographs beside its probability."""
        head, judge = self.network.phrases, self._judge
        if head is None or judge is None or weight == 0:
            return None
        shares = head(features).tolist()  # (B, P)
        return lambda photograph, ids: weight * judge.agreement(ids, shares[photograph])

    def _search(
        self, memory: Memory, count: int, options: DecodingOptions, judge: JudgeFunction | None
    ) -> list[list[Caption]]:
        """The captions of ``count`` photographs; ``memory`` has a row for each."""
        rows = torch.arange(count, device=self._device).repeat_interleave(options.beam_size)
        memory = memory.select(rows)
        decoder = self.network.decoder

        def step(ids: Tensor, state: DecoderState) -> DecoderStep:
            return decoder.step(ids, state, memory)

        start = decoder.initial_state(memory)
        linking = None if options.allow_repeats else self._linking
        found = beam_search(step, start, count, options, linking, self._endings, judge)
        return [[self._as_caption(hypothesis) for hypothesis in hypotheses] for hypotheses in found]

    @torch.inference_mode()
    def read(
        self, images: Sequence[Image.Image], captions: Sequence[Sequence[Sequence[str]]]
    ) -> list[list[Caption]]:
        """Where the network looks when it is made to say given captions (teacher forcing).

        Args:
            images: as for ``caption``.
            captions: for each photograph the captions to read, as ``tokenize`` gives them; tokens that the
                vocabulary lacks are read as the unknown token.

        Returns:
            For each photograph the given captions, in order, with looks and log-probabilities. The latter are
            over the whole vocabulary; a search takes them over the words it may say.

        Raises:
            ImageError: a picture is not RGB.
        """
        read: list[list[Caption]] = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.stack([self._preprocess(image) for image in images[start : start + BATCH_SIZE]])
            texts = captions[start : start + len(batch)]
            found = iter(self._read_batch(batch.to(self._device), texts))
            read += [[next(found) for _ in of_photograph] for of_photograph in texts]
        return read

    def _read_batch(self, images: Tensor, captions: Sequence[Sequence[Sequence[str]]]) -> Iterator[Caption]:
        """The captions of all photographs one after the other."""
        flat = [(owner, words) for owner, texts in enumerate(captions) for words in texts]
        encoded = [self.vocabulary.encode(words) for _, words in flat]
        order = sorted(range(len(flat)), key=lambda place: -len(encoded[place]))  # longest first
        ids = [torch.tensor(encoded[place], dtype=torch.long) for place in order]
        lengths = torch.tensor([len(words) + 1 for words in ids])  # the end token counted
        start, end = torch.tensor([Vocabulary.start_id]), torch.tensor([Vocabulary.end_id])
        feed = pad_sequence([torch.cat((start, words)) for words in ids], batch_first=True)  # (N, T)
        targets = pad_sequence([torch.cat((words, end)) for words in ids], batch_first=True)  # (N, T)
        memory = self.network.remember(images).select(torch.tensor([flat[place][0] for place in order]))
        reading = self.network.read(memory, feed.to(self._device), lengths)
        packed = pack_padded_sequence(targets, lengths, batch_first=True)
        chosen = (
            reading.logits.float().log_softmax(dim=1).gather(1, packed.data.to(self._device).unsqueeze(1))
        )
        log_probs, _ = pad_packed_sequence(
            packed._replace(data=chosen.squeeze(1)), batch_first=True
        )  # (N, T)
        for row in sorted(range(len(order)), key=order.__getitem__):
            words = flat[order[row]][1]
            tokens = self.vocabulary.cut(words)
            look = reading.looks.select(row)  # (T, ...)
            seen = zip(tokens, log_probs[row].tolist(), map(look.select, range(len(tokens))), strict=False)
            yield Caption(
                text=detokenize(words),
                log_prob=float(log_probs[row].sum()),
                words=tuple(_as_word(word, log_prob, at, self._grid) for word, log_prob, at in seen),
                grid=self._grid,
                is_finished=True,
            )

    def _as_caption(self, hypothesis: Hypothesis) -> Caption:
        tokens = self.vocabulary.decode(hypothesis.ids)
        seen = zip(tokens, hypothesis.log_probs, hypothesis.looks, strict=True)
        return Caption(
            text=self.vocabulary.text(hypothesis.ids),
            log_prob=hypothesis.log_prob,
            words=tuple(_as_word(word, log_prob, look, self._grid) for word, log_prob, look in seen),
            grid=self._grid,
            is_finished=hypothesis.is_finished,
        )


def _endings(network: CaptionNetwork, vocabulary: Vocabulary) -> Endings:
    return Endings.of_table(network.endings) if network.endings else Endings.of_words(vocabulary)


def check_device(name: str) -> None:
    """Refuse what is no torch device of this machine.

    Raises:
        OptionsError: it is not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # the latter from a torch built without that kind of device
        raise OptionsError(f"There is no device {name!r} here; 'cpu' always works.") from None


def _as_word(word: str, log_prob: float, look: Look, grid: Grid) -> Word:
    """A word with what was seen at its step: a look of one row."""
    return Word(
        word=word,
        log_prob=log_prob,
        beta=None if look.beta is None else float(look.beta),
        attention=None if look.alpha is None else _on_grid(look.alpha, grid),
        heads=None if look.heads is None else tuple(_on_grid(head, grid) for head in look.heads),
        sentinel=None if look.sentinel is None else float(look.sentinel),
        chosen=None if look.chosen is None else divmod(int(look.chosen), grid.columns),
    )


def _on_grid(weights: Tensor, grid: Grid) -> Map:
    """Weights (L,) as rows x columns."""
    return tuple(tuple(row) for row in weights.view(grid.rows, grid.columns).tolist())
