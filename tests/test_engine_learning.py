"""Training on coloured shapes learns to name them and to attend to them."""

from random import Random
from typing import NamedTuple

import pytest
import torch

from model import Caption, Captioner, CheckpointInfo, DecodingOptions, Grid, ModelConfig
from model.network import CaptionNetwork
from model.preprocess import Preprocess
from model.tokenizer import tokenize
from model.vocabulary import Vocabulary
from training.data.batches import Example, collate
from training.data.shapes import COLOURS, SHAPES, Scene, Shape, draw_world
from training.engine.config import TrainConfig
from training.engine.trainer import Trainer
from training.evaluation.metrics import CorpusScores

SCENES, HELD_OUT, SIZE, STEPS, BATCH = 5000, 200, 48, 900, 16


class Learned(NamedTuple):
    """Held-out scenes of one shape each, and what a captioner trained from nothing says of them."""

    scenes: list[Scene]
    captions: list[Caption]


@pytest.fixture(scope="module")
def learned() -> Learned:
    scenes = [scene for scene in draw_world(SCENES, size=SIZE, seed=1) if len(scene.shapes) == 1]
    train, held_out = scenes[HELD_OUT:], scenes[:HELD_OUT]
    captioner = train_captioner(train)
    found = captioner.caption([scene.image for scene in held_out], DecodingOptions())
    return Learned(scenes=held_out, captions=[captions[0] for captions in found])


def train_captioner(scenes: list[Scene]) -> Captioner:
    """A small captioner, trained from random weights in half a minute."""
    # The shortest caption of each: less language to learn before there is something to see.
    texts = [tokenize(min(scene.captions, key=len)) for scene in scenes]
    vocabulary = Vocabulary.build(texts, min_count=2)
    config = ModelConfig(
        vocabulary_size=len(vocabulary),
        encoder="tiny_cnn",
        image_size=SIZE,
        annotation_dim=64,
        attention_dim=48,
        embedding_dim=56,
        hidden_dim=72,
        dropout=0.0,
    )
    # Gently and with label smoothing: a decoder that is quickly sure of its language stops looking.
    recipe = TrainConfig(
        epochs=STEPS,
        frozen_epochs=0,
        learning_rate=1.5e-3,
        encoder_learning_rate=2e-3,
        warmup_steps=100,
        label_smoothing=0.1,
        doubly_stochastic=0.0,
        clip_norm=5.0,
        average_decay=0.95,
    )
    preprocess = Preprocess(config)
    examples = [
        Example(preprocess(scene.image), [[*vocabulary.encode(words), Vocabulary.end_id]])
        for scene, words in zip(scenes, texts, strict=True)
    ]
    torch.manual_seed(0)
    trainer = Trainer(CaptionNetwork(config), recipe, steps_per_epoch=1, precision="fp32")
    rng = Random(0)
    for _ in range(STEPS):
        trainer.train_step([collate(rng.sample(examples, BATCH))])
    info = CheckpointInfo(name="x", licence="x", trained_on="x")
    return Captioner(trainer.ema_network, config, vocabulary, info)


def test_captions_fit_their_own_scenes(learned: Learned) -> None:
    captions = [caption.text for caption in learned.captions]
    references = [list(scene.captions) for scene in learned.scenes]
    own = CorpusScores.of(captions, references).summary()["cider"]
    others = CorpusScores.of(captions[1:] + captions[:1], references).summary()["cider"]
    assert own > 1.5 * others


def test_named_colours_are_correct(learned: Learned) -> None:
    """By chance one in six."""
    assert share_right(learned, list(COLOURS), [scene.shapes[0].colour for scene in learned.scenes]) > 0.8


def test_shape_words_attend_to_the_shape(learned: Learned) -> None:
    """The peak of their maps lies in its box, give or take half a cell, far more often than by chance."""
    hits, chances = [], []
    for scene, caption in zip(learned.scenes, learned.captions, strict=True):
        cells = cells_of(scene.shapes[0], caption.grid)
        for word in caption.words:
            if word.word in (*COLOURS, *SHAPES):
                hits.append(peak(word.attention) in cells)
                chances.append(len(cells) / (caption.grid.rows * caption.grid.columns))
    assert len(hits) > len(learned.scenes)
    assert sum(hits) > 2 * sum(chances)


def share_right(learned: Learned, kind: list[str] | tuple[str, ...], truth: list[str]) -> float:
    """Of the words of this kind that the captions say, the share that is true of their scenes."""
    said = [
        word.word == true
        for caption, true in zip(learned.captions, truth, strict=True)
        for word in caption.words
        if word.word in kind
    ]
    assert len(said) > 0.9 * len(truth)
    return sum(said) / len(said)


def cells_of(shape: Shape, grid: Grid) -> set[tuple[int, int]]:
    """Row and column of the cells whose middles lie in the shape's box, give or take half a cell."""
    left, top, width, height = shape.box
    high, wide = SIZE / grid.rows, SIZE / grid.columns
    return {
        (row, column)
        for row in range(grid.rows)
        for column in range(grid.columns)
        if top - high <= row * high <= top + height and left - wide <= column * wide <= left + width
    }


def peak(attention: tuple[tuple[float, ...], ...]) -> tuple[int, int]:
    """Row and column of the largest weight."""
    cells = [
        (weight, (row, column)) for row, line in enumerate(attention) for column, weight in enumerate(line)
    ]
    return max(cells)[1]
