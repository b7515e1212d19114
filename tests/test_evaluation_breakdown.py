"""Scores by group, and counts of faulty captions."""

import random

import pytest

from model import Caption, Grid, Word
from training.evaluation.breakdown import (
    FAULTS,
    GROUPS,
    KINDS,
    LENGTHS,
    by_category,
    by_length,
    count_faults,
    ends_on_function_word,
    group_of,
    repeats_around_and,
    repeats_bigram,
)
from training.evaluation.metrics import CorpusScores
from training.evaluation.object_words import CategoryWords

SOUND = [
    "a dog runs",
    "a brown dog and a black dog are running",
    "a man in a red shirt and a woman in a blue shirt",
    "a boy and another boy play",
    "two dogs run through the snow and over the grass",
    "a group of people is standing in front of a building",
    "the man next to the car and the woman next to the bus",
    "a child smiles",
    "on and on she walks",
    "",
]
PHRASES = ["a dog", "two men", "a little girl in a red dress", "dogs", "the brown dog", "red"]


def caption_of(text: str, *, is_finished: bool = True) -> Caption:
    """Its tokens are letters, which no figure here may take for words."""
    words = tuple(Word(word=letter, log_prob=-1.0, beta=None, attention=None) for letter in text)
    grid = Grid(rows=1, columns=1, box=(0.0, 0.0, 1.0, 1.0))
    return Caption(text=text, log_prob=-1.0, words=words, grid=grid, is_finished=is_finished)


@pytest.mark.parametrize("text", SOUND)
def test_sound_caption_has_no_faults(text):
    assert not any(count_faults([caption_of(text)]).values())


@pytest.mark.parametrize(("before", "after"), [("", ""), ("near here ", ""), ("", " run"), ("here ", " run")])
def test_repeated_conjunct_is_found_anywhere(before, after):
    for phrase in PHRASES:
        assert repeats_around_and(f"{before}{phrase} and {phrase}{after}".split())
        assert not repeats_around_and(f"{before}{phrase}{after}".split())


@pytest.mark.parametrize("phrase", [phrase for phrase in PHRASES if " " in phrase])
def test_repeated_bigram_is_found_at_any_distance(phrase):
    for between in ("and", "and", "chases another one near"):
        assert repeats_bigram(f"{phrase} {between} {phrase}".split())
    assert not repeats_bigram(phrase.split())


@pytest.mark.parametrize("word", ["a", "with", "and", "is"])
def test_ending_on_function_word_is_found(word):
    for text in SOUND:
        assert ends_on_function_word([*text.split(), word])
    assert not ends_on_function_word([word, "dog"])


def test_unfinished_caption_is_found():
    found = count_faults([caption_of("a dog runs", is_finished=False), caption_of("a dog runs")])
    assert found == dict.fromkeys(FAULTS, 0) | {"unfinished": 1}


@pytest.mark.parametrize("seed", range(2))
def test_planted_faults_are_counted(seed):
    rng = random.Random(seed)
    planted = [rng.choice([None, "repeated_around_and", "ends_on_function_word"]) for _ in range(40)]
    endings = {None: "", "repeated_around_and": " and men", "ends_on_function_word": " with a"}
    captions = [caption_of(f"{rng.choice(['two', 'five'])} men{endings[fault]}") for fault in planted]
    found = count_faults(captions)
    for fault in ("repeated_around_and", "ends_on_function_word"):
        assert found[fault] == planted.count(fault)
    assert found["repeated_bigram"] == found["unfinished"] == 0


def test_faults_are_additive():
    texts = [*SOUND, "a dog and a dog", "two men and two men are", "a dog with a"]
    captions = [caption_of(text, is_finished=len(text) % 2 == 0) for text in texts]
    apart = [count_faults([caption]) for caption in captions]
    assert count_faults(captions) == {name: sum(one[name] for one in apart) for name in apart[0]}


WORDS = [
    "a",
    "man",
    "dog",
    "cat",
    "ball",
    "runs",
    "sits",
    "on",
    "grass",
    "the",
    "brown",
    "water",
    "over",
    "two",
    "with",
]


def world(seed: int, photos: int = 60) -> tuple[CorpusScores, list[Caption], list[list[tuple[str, ...]]]]:
    rng = random.Random(seed)

    def sentence() -> tuple[str, ...]:
        return tuple(rng.choices(WORDS, k=rng.randint(1, 15)))

    references = [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(photos)]
    said = [" ".join(rng.choice([sentence(), rng.choice(texts)])) for texts in references]
    corpus = CorpusScores.of(said, [[" ".join(text) for text in texts] for texts in references])
    return corpus, [caption_of(text) for text in said], references


@pytest.mark.parametrize("kind", ["length", "category"])
def test_groups_partition_the_corpus(kind):
    corpus, captions, references = world(seed=0)
    groups = by_length(corpus, captions) if kind == "length" else by_category(corpus, references)
    assert list(groups) == [name for name in (LENGTHS if kind == "length" else GROUPS) if name in groups]
    assert len(groups) > 2
    assert sum(group["photographs"] for group in groups.values()) == len(captions)
    mean = sum(group["photographs"] * group["cider"] for group in groups.values()) / len(captions)
    assert mean == pytest.approx(corpus.summary()["cider"], abs=0.01)
    for group in groups.values():
        assert group["photographs"] > 0
        for name, (low, high) in group["intervals"].items():
            assert low - 0.01 <= group[name] <= high + 0.01 or name == "bleu_4"


def test_single_group_has_corpus_scores():
    corpus, captions, _ = world(9)
    short = [caption_of("a dog") for _ in captions]
    found, whole = by_length(corpus, short), corpus.summary()
    assert found == {
        "up_to_8": {
            "photographs": len(captions),
            "cider": whole["cider"],
            "bleu_4": whole["bleu_4"],
            "intervals": {name: whole["intervals"][name] for name in ("cider", "bleu_4")},
        }
    }


@pytest.mark.parametrize(
    ("words", "group"),
    [
        (1, "up_to_8"),
        (8, "up_to_8"),
        (9, "9_to_11"),
        (11, "9_to_11"),
        (12, "12_and_more"),
        (50, "12_and_more"),
    ],
)
def test_captions_are_grouped_by_word_count(words, group):
    corpus = CorpusScores.of(["a dog"], [["a dog"]])
    assert list(by_length(corpus, [caption_of(" ".join(["dog"] * words))])) == [group]


NAMES = CategoryWords(sorted(frozenset().union(*KINDS.values())))


@pytest.mark.parametrize(
    ("texts", "group"),
    [
        (["a man runs", "a boy runs", "somebody runs"], "people"),
        (["a man runs", "he runs", "somebody runs"], "neither"),
        (["a man runs"], "people"),
        (["two men on bikes", "a cyclist on his bike", "people race"], "people_with_gear"),
        (["a man with a ball", "a woman on skis"], "people_with_gear"),
        (["a dog runs", "a puppy runs", "a man runs"], "dogs"),
        (["a dog with a ball", "a dog catches a ball"], "dogs"),
        (["a dog and a boy", "a boy with his dog", "a dog"], "people_and_dogs"),
        (["a man rides a horse", "a cowboy on his horse"], "other_animals"),
        (["a bird flies", "a duck flies"], "other_animals"),
        (["hot dogs", "a hot dog", "a teddy bear"], "neither"),
        (["a red car", "the car"], "neither"),
    ],
)
def test_group_is_named_by_two_references(texts, group):
    assert group_of([text.split() for text in texts], NAMES) == group


def test_group_is_independent_of_reference_order():
    rng = random.Random(3)
    for _ in range(50):
        references = [rng.choices(WORDS, k=5) for _ in range(5)]
        group = group_of(references, NAMES)
        assert group in GROUPS
        assert group_of(rng.sample(references, 5), NAMES) == group
