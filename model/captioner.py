"""The captioner: images in, captions with their attention maps out.

HTTP, batch, validation and evaluation all call ``Captioner.caption``, or its two halves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from model.attention import AttentionMaps, Memory
from model.caption import Caption, Grid, Label, Map, Word
from model.checkpoint import CheckpointInfo, load_checkpoint
from model.confidence import ConfidenceScorer
from model.config import ModelConfig
from model.decoding.beam_search import Hypothesis, Scorer, beam_search, check_finite
from model.decoding.constraints import build_constraints
from model.decoding.options import DecodingOptions
from model.endings import Endings
from model.errors import OptionsError
from model.network import CaptionNetwork
from model.phrases import PhraseScorer
from model.preprocess import Preprocess
from model.tokenizer import detokenize
from model.vocabulary import Vocabulary

# Images encoded and decoded at once; a larger batch is no faster on a CPU and needs more memory.
BATCH_SIZE = 32


@dataclass(frozen=True)
class EncodedImages:
    """A batch of images as ``Captioner.encode`` gives it to ``Captioner.decode``."""

    features: Tensor  # (B, L, F)
    memory: Memory  # of B rows


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
        self._phrases = PhraseScorer(network.phrases) if network.phrases else None
        self._endings = Endings(network.endings.as_dict()) if network.endings else None
        self._confidence = None
        if network.confidence:
            self._confidence = ConfidenceScorer(network.confidence, network.phrases, network.evidence)
        self._detected = frozenset(network.evidence.ids.tolist()) if network.evidence else frozenset[int]()
        self._device = next(network.parameters()).device

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> Self:
        """The captioner in a checkpoint folder, on a device as torch names it.

        Raises:
            CheckpointError: the folder is missing or damaged, or is not a checkpoint.
            OptionsError: there is no such device.
        """
        check_device(device)
        checkpoint = load_checkpoint(Path(folder))
        network = checkpoint.network.to(device)
        return cls(network, checkpoint.config, checkpoint.vocabulary, checkpoint.info)

    def caption(
        self, images: Sequence[Image.Image], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        """Captions of images, with attention maps of every token, usually a word.

        Args:
            images: upright RGB images of any size, as ``open_image`` gives them.
            options: see ``resolve`` for the maximum length.

        Returns:
            For each image its captions, best first. They do not depend on the other images.

        Raises:
            ImageError: an image is not RGB.
            NonFiniteError: the network's output is not finite.
        """
        captions: list[list[Caption]] = []
        for start in range(0, len(images), BATCH_SIZE):
            captions += self.decode(self.encode(images[start : start + BATCH_SIZE]), options)
        return captions

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> EncodedImages:
        """The first half of ``caption``, of at least one image and at most ``BATCH_SIZE``.

        Raises:
            ImageError: an image is not RGB.
        """
        features = self.network.encoder(self._batch(images))  # (B, L, F)
        return EncodedImages(features, self.network.encode_features(features))

    @torch.inference_mode()
    def decode(self, encoded: EncodedImages, options: DecodingOptions | None = None) -> list[list[Caption]]:
        """The second half of ``caption``.

        Raises:
            NonFiniteError: the network's output is not finite.
        """
        found = self.search(encoded, options or DecodingOptions())
        model = self.network.confidence
        confidences: list[list[float] | list[None]] = [[None] * len(hypotheses) for hypotheses in found]
        if model is not None:
            of_images = self.confidence_features(encoded, found)
            confidences = [model(features.to(self._device)).tolist() for features in of_images]
        head = self.network.labels
        labels = [None] * len(found) if head is None else head.best(encoded.features)
        return [
            [
                self._as_caption(hypothesis, encoded.memory, image, confidence, labels[image])
                for hypothesis, confidence in zip(hypotheses, confidences[image], strict=True)
            ]
            for image, hypotheses in enumerate(found)
        ]

    @torch.inference_mode()
    def search(self, encoded: EncodedImages, options: DecodingOptions) -> list[list[Hypothesis]]:
        """The captions that ``decode`` returns, as ids.

        Raises:
            NonFiniteError: the network's output is not finite.
        """
        options = self.resolve(options)
        images = len(encoded.features)
        rows = torch.arange(images, device=self._device).repeat_interleave(options.beam_size)
        memory = encoded.memory._replace(draw_seed=options.draw_seed).select(rows)  # (B * K, L, D)
        decoder = self.network.decoder
        return beam_search(
            decoder.step,
            decoder.initial_state(memory),
            memory,
            images,
            options,
            constraints=build_constraints(self.vocabulary, self.config.language, options, self._endings),
            scorer=self._scorer(encoded.features, options.phrase_weight),
        )

    @torch.inference_mode()
    def confidence_features(
        self, encoded: EncodedImages, found: Sequence[Sequence[Hypothesis]]
    ) -> list[Tensor]:
        """What the confidence of captions is computed from, see ``ConfidenceScorer.features``.

        The network must have a confidence model; only its table of names matters.
        """
        assert self._confidence is not None
        head = self.network.phrases
        shares = None if head is None else head(encoded.features)
        captions = [[(one.ids, one.log_prob) for one in hypotheses] for hypotheses in found]
        return self._confidence.features(captions, shares, encoded.memory.evidence)

    def resolve(self, options: DecodingOptions) -> DecodingOptions:
        """The options, with the model's own maximum length where they set none."""
        if options.max_length is None:
            return replace(options, max_length=self.config.caption_length)
        return options

    @torch.inference_mode()
    def force_decode(
        self, images: Sequence[Image.Image], captions: Sequence[Sequence[Sequence[str]]]
    ) -> list[list[Caption]]:
        """Attention maps and log-probabilities of given captions (teacher forcing).

        Args:
            images: as for ``caption``.
            captions: for each image its captions, as ``tokenize`` gives them; tokens that are not in the
                vocabulary are read as the unknown token.

        Returns:
            For each image the given captions, in order. Log-probabilities are over the whole vocabulary,
            those of ``caption`` over the tokens a caption may hold.

        Raises:
            ImageError: an image is not RGB.
            NonFiniteError: the network's output is not finite.
        """
        decoded: list[list[Caption]] = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = self._batch(images[start : start + BATCH_SIZE])
            texts = captions[start : start + len(batch)]
            flat = self._force_decode_batch(batch, texts)
            decoded += [[next(flat) for _ in of_image] for of_image in texts]
        return decoded

    def _batch(self, images: Sequence[Image.Image]) -> Tensor:
        """(B, 3, S, S)."""
        return torch.stack([self._preprocess(image) for image in images]).to(self._device)

    def _scorer(self, features: Tensor, weight: float) -> Scorer | None:
        """The phrase score of captions of these images, if the network has a phrase head."""
        head, phrases = self.network.phrases, self._phrases
        if head is None or phrases is None or weight == 0:
            return None
        shares = head(features).tolist()  # (B, P)
        return lambda image, ids: weight * phrases.score(ids, shares[image])

    def _force_decode_batch(
        self, images: Tensor, captions: Sequence[Sequence[Sequence[str]]]
    ) -> Iterator[Caption]:
        """The captions of all images one after the other."""
        flat = [(owner, words) for owner, texts in enumerate(captions) for words in texts]
        encoded = [self.vocabulary.encode(words) for _, words in flat]
        order = sorted(range(len(flat)), key=lambda place: -len(encoded[place]))  # longest first
        ids = [torch.tensor(encoded[place], dtype=torch.long) for place in order]
        lengths = torch.tensor([len(words) + 1 for words in ids])  # the end token counted
        start, end = torch.tensor([Vocabulary.start_id]), torch.tensor([Vocabulary.end_id])
        inputs = pad_sequence([torch.cat((start, words)) for words in ids], batch_first=True)  # (N, T)
        targets = pad_sequence([torch.cat((words, end)) for words in ids], batch_first=True)  # (N, T)
        memory = self.network.encode(images).select(torch.tensor([flat[place][0] for place in order]))
        forced = self.network.teacher_force(memory, inputs.to(self._device), lengths)
        check_finite(forced.logits)
        packed = pack_padded_sequence(targets, lengths, batch_first=True)
        index = packed.data.to(self._device).unsqueeze(1)
        chosen = forced.logits.float().log_softmax(dim=1).gather(1, index).squeeze(1)
        log_probs, _ = pad_packed_sequence(packed._replace(data=chosen), batch_first=True)  # (N, T)
        for row in sorted(range(len(order)), key=order.__getitem__):
            words = flat[order[row]][1]
            tokens = self.vocabulary.cut(words)
            maps = forced.maps.select(row)  # (T, ...)
            support = self._support(encoded[order[row]], memory, row)
            of_words = log_probs[row, : len(tokens)].tolist()
            steps = zip(tokens, of_words, map(maps.select, range(len(tokens))), support, strict=True)
            yield Caption(
                text=detokenize(words),
                log_prob=float(log_probs[row].sum()),
                words=tuple(_as_word(*step, self._grid) for step in steps),
                grid=self._grid,
                is_finished=True,
            )

    def _support(self, ids: Sequence[int], memory: Memory, row: int) -> list[float | None]:
        """The evidence of each word in the image of a row, None for words without."""
        if memory.evidence is None:
            return [None] * len(ids)
        found = memory.evidence.words[row, [*ids]].tolist()
        return [value if index in self._detected else None for index, value in zip(ids, found, strict=True)]

    def _as_caption(
        self,
        hypothesis: Hypothesis,
        memory: Memory,
        image: int,
        confidence: float | None,
        labels: tuple[Label, ...] | None,
    ) -> Caption:
        """A hypothesis with its words; ``image``: its row of the memory."""
        tokens = self.vocabulary.decode(hypothesis.ids)
        support = self._support(hypothesis.ids, memory, image)
        steps = zip(tokens, hypothesis.log_probs, hypothesis.maps, support, strict=True)
        return Caption(
            text=self.vocabulary.text(hypothesis.ids),
            log_prob=hypothesis.log_prob,
            words=tuple(_as_word(*step, self._grid) for step in steps),
            grid=self._grid,
            is_finished=hypothesis.is_finished,
            confidence=confidence,
            labels=labels,
        )


def check_device(name: str) -> None:
    """Check that torch can use a device.

    Raises:
        OptionsError: it cannot.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # the latter from a torch built without that kind of device
        raise OptionsError(f"There is no device {name!r} here; 'cpu' always works.") from None


def _as_word(word: str, log_prob: float, maps: AttentionMaps, support: float | None, grid: Grid) -> Word:
    """A word with the maps of its step, of one row."""
    return Word(
        word=word,
        log_prob=log_prob,
        beta=None if maps.beta is None else float(maps.beta),
        support=support,
        attention=None if maps.alpha is None else _on_grid(maps.alpha, grid),
        heads=None if maps.heads is None else tuple(_on_grid(head, grid) for head in maps.heads),
        sentinel=None if maps.sentinel is None else float(maps.sentinel),
        chosen=None if maps.chosen is None else divmod(int(maps.chosen), grid.columns),
    )


def _on_grid(weights: Tensor, grid: Grid) -> Map:
    """Weights (L,) as rows x columns."""
    return tuple(tuple(row) for row in weights.view(grid.rows, grid.columns).tolist())
