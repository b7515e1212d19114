"""The table of endings: what is learnt, and which captioners have one."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import random_network

from model import CheckpointInfo
from model.checkpoint import Checkpoint
from model.endings import Endings
from model.vocabulary import Vocabulary
from training.engine.config import RunOptions
from training.runs.endings import learn_endings
from training.runs.initialization import Initialization, continued_config, grown_network
from training.runs.phrase_training import PhraseOptions, _with_head

A, WHITE, DOG, RED, BALL, SITS, IN = range(4, 11)
SUBJECT = [20, 21, 22]
CAPTIONS = [[*SUBJECT, SITS, A, WHITE, DOG], [*SUBJECT, A, RED, BALL], [*SUBJECT, SITS, IN, WHITE]]


def test_phrases_that_end_no_caption_dangle():
    rng = random.Random(0)
    endings = Endings(learn_endings([rng.choice(CAPTIONS) for _ in range(3000)]))
    for ids, dangles in (
        ([A, WHITE], True),
        ([IN, WHITE], False),
        ([A], True),
        ([BALL], False),
        ([DOG], False),
    ):
        assert endings.dangles([*SUBJECT, SITS, *ids]) is dangles
    assert not any(map(endings.dangles, CAPTIONS))


def test_table_omits_what_shorter_phrases_say():
    assert learn_endings([[*SUBJECT, A, DOG]] * 1000) == {(A,): True}


def test_unknown_words_and_rare_phrases_are_not_in_the_table():
    unknown = [*SUBJECT, Vocabulary.unk_id, DOG]
    assert learn_endings([unknown] * 1000) == {}
    assert learn_endings(CAPTIONS) == {}
    assert learn_endings([[A, DOG]] * 1000) == {}  # shorter than any caption that counts
    assert learn_endings([]) == {}


@pytest.mark.parametrize(
    ("tokens", "without_endings", "is_learnt"),
    [("words", False, True), ("words", True, False), ("characters", False, False)],
)
def test_endings_are_learnt_with_new_vocabulary(tmp_path, tokens, without_endings, is_learnt):
    options = RunOptions(
        captions=(), images=(), output=tmp_path, encoder_weights="none", min_count=1, device="cpu"
    )
    initialization = Initialization(options, {"encoder": "tiny_cnn", "image_size": 40, "tokens": tokens})
    captions = [["two", "dogs", "sit", "on", "a", "lawn"]] * 1000
    network, config, vocabulary = initialization.build(captions, 0, without_endings=without_endings)
    assert (config.endings > 0, network.endings is not None) == (is_learnt, is_learnt)
    if network.endings:
        a = vocabulary.encode(["a"])
        assert Endings(network.endings.as_dict()).dangles([9, *a])


def test_finetuning_and_phrase_training_keep_endings(config, vocabulary):
    config = replace(config, endings=2)
    network = random_network(config)
    network.endings.fill({(4,): True, (5, 4): False})
    info = CheckpointInfo(name="tiny", licence="none", trained_on="nothing")
    start = Checkpoint(config=config, vocabulary=vocabulary, network=network, info=info)
    finetuned = grown_network(start, continued_config(config, {}), vocabulary, [["a", "dog"]])
    options = PhraseOptions(checkpoint=Path(), captions=(), images=(), output=Path())
    for kept in (finetuned, _with_head(start, 3, options)[0]):
        assert kept.endings.as_dict() == network.endings.as_dict()
