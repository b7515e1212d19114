"""The network a run begins with: fresh on a pretrained encoder, or grown out of a trained captioner."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from model import ModelConfig, OptionsError
from model.checkpoint import Checkpoint, load_checkpoint
from model.network import CaptionNetwork
from model.tokenizer import advise_tokens
from model.vocabulary import SPECIALS, Vocabulary
from training.engine import distributed
from training.engine.config import RunOptions, as_option
from training.errors import DataError

# What does not decide what the weights mean.
FREE = ("dropout", "score_blur", "image_size")
Captions = Sequence[Sequence[str]]
WORD_ROWS = ("decoder.embedding.weight", "decoder.output.weight", "decoder.output.bias")


class Beginning(NamedTuple):
    """What a run starts with."""

    network: CaptionNetwork
    config: ModelConfig
    vocabulary: Vocabulary


def begin(options: RunOptions, network: dict[str, Any], captions: Captions, seed: int) -> Beginning:
    """The network that the options ask for.

    Args:
        options: of the run.
        network: fields of ``ModelConfig`` that somebody chose.
        captions: of the training photos, as words.
        seed: of weights that are not known yet.

    Raises:
        CheckpointError, DataError, OptionsError: there is no such network.
    """
    if options.start_from:
        return _begin_trained(load_checkpoint(options.start_from), options, network, captions, seed)
    tokens = network.get("tokens", "words")
    _advise(tokens, captions)
    vocabulary = Vocabulary.build(captions, min_count=options.min_count, tokens=tokens)
    if not vocabulary.words:
        raise DataError(f"No word occurs {options.min_count} times; choose a smaller --min-count.")
    longest = vocabulary.caption_length(captions)
    config = checked(ModelConfig(vocabulary_size=len(vocabulary), caption_length=longest, **network))
    torch.manual_seed(seed)
    fresh = CaptionNetwork(config)
    if not options.resume and options.encoder_weights != "none":
        source = options.encoder_weights
        fresh.encoder.load_pretrained(None if source == "published" else Path(source))
    with torch.no_grad():
        fresh.decoder.output.bias.copy_(_log_frequencies(vocabulary, captions))
    return Beginning(fresh, config, vocabulary)


def _begin_trained(
    start: Checkpoint, options: RunOptions, network: dict[str, Any], captions: Captions, seed: int
) -> Beginning:
    _advise(start.config.tokens, captions)
    vocabulary = start.vocabulary.grown(captions, min_count=options.min_count)
    config = checked(replace(continued_config(start.config, network), vocabulary_size=len(vocabulary)))
    torch.manual_seed(seed)
    return Beginning(grown_network(start, config, vocabulary, captions), config, vocabulary)


def _advise(tokens: str, captions: Captions) -> None:
    if tokens == "words" and distributed.is_first() and (advice := advise_tokens(captions)):
        print(advice, file=sys.stderr)


def checked(config: ModelConfig) -> ModelConfig:
    """The configuration itself.

    Raises:
        CheckpointError: no network can have it; the message names the field.
    """
    return ModelConfig.from_record(config.as_record())


def continued_config(start: ModelConfig, network: dict[str, Any]) -> ModelConfig:
    """The configuration of a trained captioner with what of ``network`` may differ from it.

    Raises:
        OptionsError: an option asks for another network than the trained one.
    """
    for name, value in network.items():
        if name not in FREE and value != getattr(start, name):
            raise OptionsError(
                f"{as_option(name)} is {value}, but the captioner to start from has {getattr(start, name)}; "
                "leave the option out, or leave out --start-from."
            )
    # Which phrases people use is another question of other photos: training.phrases asks it anew.
    return replace(start, phrases=0, phrase_dim=ModelConfig.phrase_dim, **network)


def grown_network(
    start: Checkpoint, config: ModelConfig, vocabulary: Vocabulary, captions: Captions
) -> CaptionNetwork:
    """A trained network whose vocabulary grew: what it knew it knows, the new words are fresh.

    Args:
        start: the trained captioner.
        config: ``continued_config`` with the size of ``vocabulary``.
        vocabulary: begins with the words of ``start``.
        captions: of the training photos, as words.

    Raises:
        OptionsError: photos of the size of ``config`` have a grid that the weights are not of.
    """
    assert vocabulary.words[: len(start.vocabulary.words)] == start.vocabulary.words
    network = CaptionNetwork(config)
    old = start.network.state_dict()
    with torch.no_grad():
        # Words as far apart as the known ones, and as likely as people use them.
        network.decoder.embedding.weight.normal_(std=float(old[WORD_ROWS[0]][len(SPECIALS) :].std()))
        network.decoder.output.bias.copy_(_log_frequencies(vocabulary, captions))
    take_weights(network, old, config.image_size)
    return network


def take_weights(network: CaptionNetwork, known: Mapping[str, torch.Tensor], image_size: int) -> None:
    """Give a network those ``known`` weights that it has; it may have words after those that are known.

    ``image_size`` is what it was built for.

    Raises:
        OptionsError: photos of its size have a grid that the weights are not of.
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
                f"--image-size is {image_size}, but this captioner has weights for places of its grid; "
                "leave the option out."
            )


def _log_frequencies(vocabulary: Vocabulary, captions: Captions) -> torch.Tensor:
    """How often people say each word, (V,): the first epoch need not learn that."""
    counts = Counter(index for words in captions for index in vocabulary.encode(words))
    counts[vocabulary.end_id] = len(captions)
    frequencies = torch.tensor([counts[index] + 1.0 for index in range(len(vocabulary))])
    return (frequencies / frequencies.sum()).log()
