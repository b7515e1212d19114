"""The network that a run starts with: new, on a pretrained encoder, or a trained captioner to fine-tune."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from model import ModelConfig, OptionsError
from model.captioner import check_device
from model.checkpoint import Checkpoint, load_checkpoint
from model.network import CaptionNetwork
from model.options import flag
from model.tokenizer import Words, advise_tokens
from model.vocabulary import SPECIALS, Vocabulary
from training.engine import distributed
from training.engine.config import RunOptions
from training.errors import DataError
from training.runs.endings import learn_endings

# Fields that may differ between captioners whose weights mean the same.
FREE = ("language", "dropout", "score_blur", "image_size")
WORD_ROWS = ("decoder.embedding.weight", "decoder.output.weight", "decoder.output.bias")

Captions = Sequence[Sequence[str]]  # of the training images, as words
Weights = Mapping[str, torch.Tensor]


class InitialModel(NamedTuple):
    """What a run starts with."""

    network: CaptionNetwork
    config: ModelConfig
    vocabulary: Vocabulary


class Initialization:
    """Builds the network of a run; everything but the vocabulary is known before any photo is read."""

    def __init__(self, options: RunOptions, network: dict[str, Any]) -> None:
        """Check the ``network``, the chosen fields of ``ModelConfig``, and load the weights to start from.

        Raises:
            CheckpointError, OptionsError: there is no such network, or the weights cannot be loaded.
        """
        check_device(options.device)
        self._min_count = options.min_count
        self._start: Checkpoint | None = None
        self._pretrained: Weights | None = None
        if options.start_from:
            self._start = without_confidence(load_checkpoint(options.start_from))
            self._config = checked(continued_config(self._start.config, network))
            take_weights(
                CaptionNetwork(self._config), self._start.network.state_dict(), self._config.image_size
            )
            return
        self._config = checked(ModelConfig(vocabulary_size=len(SPECIALS) + 1, **network))
        encoder = CaptionNetwork(self._config).encoder
        if not options.resume and options.encoder_weights != "none":
            source = options.encoder_weights
            encoder.load_pretrained(None if source == "published" else Path(source))
            self._pretrained = encoder.state_dict()

    def build(self, captions: Captions, seed: int, *, without_endings: bool = False) -> InitialModel:
        """Build the network for the vocabulary of ``captions``; ``seed`` draws its new weights.

        With a new vocabulary of words, the phrases that captions end on are learnt, unless
        ``without_endings``.

        Raises:
            DataError: no word is frequent enough.
        """
        is_advised = self._config.tokens == "words" and distributed.is_main_process()
        if is_advised and (advice := advise_tokens(captions)):
            print(advice, file=sys.stderr)
        if self._start:
            return self._fine_tuned(self._start, captions, seed)
        return self._new(captions, seed, without_endings)

    def _new(self, captions: Captions, seed: int, without_endings: bool) -> InitialModel:
        vocabulary = Vocabulary.build(captions, min_count=self._min_count, tokens=self._config.tokens)
        if not vocabulary.words:
            raise DataError(f"No word occurs {self._min_count} times; choose a smaller --min-count.")
        longest = vocabulary.caption_length(captions)
        has_endings = isinstance(vocabulary.tokens, Words) and not without_endings
        endings = learn_endings([vocabulary.encode(words) for words in captions]) if has_endings else {}
        config = replace(
            self._config, vocabulary_size=len(vocabulary), caption_length=longest, endings=len(endings)
        )
        torch.manual_seed(seed)
        network = CaptionNetwork(config)
        if network.endings:
            network.endings.fill(endings)
        if self._pretrained:
            network.encoder.load_state_dict(self._pretrained)
        with torch.no_grad():
            network.decoder.output.bias.copy_(_log_frequencies(vocabulary, captions))
        return InitialModel(network, config, vocabulary)

    def _fine_tuned(self, start: Checkpoint, captions: Captions, seed: int) -> InitialModel:
        vocabulary = start.vocabulary.grown(captions, min_count=self._min_count)
        config = replace(self._config, vocabulary_size=len(vocabulary))
        torch.manual_seed(seed)
        return InitialModel(grown_network(start, config, vocabulary, captions), config, vocabulary)


def checked(config: ModelConfig) -> ModelConfig:
    """Return the configuration.

    Raises:
        CheckpointError: no network can have it; the message names the field.
    """
    return ModelConfig.from_record(config.as_record())


def with_new_head(
    start: Checkpoint, seed: int, prefixes: tuple[str, ...], **fields: Any
) -> tuple[CaptionNetwork, ModelConfig]:
    """The network of a captioner with an untrained head instead of the one it may have.

    Args:
        start: the captioner.
        seed: draws the new weights.
        prefixes: of the names of the head's weights.
        fields: of the configuration that the head changes.

    Raises:
        CheckpointError: no network can have these fields; the message names the one.
        OptionsError: images of a new size have another grid than the weights.
    """
    config = checked(replace(start.config, **fields))
    torch.manual_seed(seed)
    network = CaptionNetwork(config)
    known = start.network.state_dict()
    known = {name: value for name, value in known.items() if not name.startswith(prefixes)}
    take_weights(network, known, config.image_size)
    return network, config


def without_confidence(start: Checkpoint) -> Checkpoint:
    """A captioner without its confidence, which holds only for its own weights; says so on stderr."""
    if start.network.confidence is None:
        return start
    if distributed.is_main_process():
        print(
            "The confidence is left out, because it does not hold for other weights; "
            "run training.confidence on the result.",
            file=sys.stderr,
        )
    start.network.confidence = None
    return replace(start, config=replace(start.config, confidence=0, object_names=0))


def continued_config(start: ModelConfig, network: dict[str, Any]) -> ModelConfig:
    """Configuration of a trained captioner with the fields of ``network`` that may differ from it.

    Raises:
        OptionsError: a field cannot differ.
    """
    for name, value in network.items():
        if name not in FREE and value != getattr(start, name):
            raise OptionsError(
                f"{flag(name)} is {value}, but the captioner to start from has {getattr(start, name)}; "
                "leave the option out, or leave out --start-from."
            )
    # These heads were trained for the old photos and encoder; their commands train new ones.
    heads: dict[str, Any] = {"phrases": 0, "phrase_dim": ModelConfig.phrase_dim}
    heads |= {"labels": 0, "label_dim": ModelConfig.label_dim}
    return replace(start, **heads, **network)


def grown_network(
    start: Checkpoint, config: ModelConfig, vocabulary: Vocabulary, captions: Captions
) -> CaptionNetwork:
    """A trained network with a larger vocabulary: old weights are kept, new words get new weights.

    Args:
        start: the trained captioner.
        config: ``continued_config`` with the size of ``vocabulary``.
        vocabulary: starts with the words of ``start``.
        captions: of the training images, as words.

    Raises:
        OptionsError: images of the size of ``config`` have another grid than the weights.
    """
    assert vocabulary.words[: len(start.vocabulary.words)] == start.vocabulary.words
    network = CaptionNetwork(config)
    old = start.network.state_dict()
    with torch.no_grad():
        # New embeddings have the spread of the old ones, new words the bias of their frequency.
        network.decoder.embedding.weight.normal_(std=float(old[WORD_ROWS[0]][len(SPECIALS) :].std()))
        network.decoder.output.bias.copy_(_log_frequencies(vocabulary, captions))
    take_weights(network, old, config.image_size)
    return network


def take_weights(network: CaptionNetwork, known: Weights, image_size: int) -> None:
    """Copy the ``known`` weights into a network, which may have more words than these.

    ``image_size`` is the one the network was built for.

    Raises:
        OptionsError: images of that size have another grid than the weights.
    """
    for name, value in network.state_dict().items():
        if name not in known:
            continue
        if name in WORD_ROWS:
            value[: len(known[name])] = known[name]
        elif value.shape == known[name].shape:
            value.copy_(known[name])
        else:
            raise OptionsError(
                f"--image-size is {image_size}, but this captioner has weights for each location of its "
                "grid; leave the option out."
            )


def _log_frequencies(vocabulary: Vocabulary, captions: Captions) -> torch.Tensor:
    """Log relative frequency of each word, (V,): the initial output bias, so that it need not be learned."""
    counts = Counter(index for words in captions for index in vocabulary.encode(words))
    counts[vocabulary.end_id] = len(captions)
    frequencies = torch.tensor([counts[index] + 1.0 for index in range(len(vocabulary))])
    return (frequencies / frequencies.sum()).log()
