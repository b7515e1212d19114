"""BLEU, ROUGE-L and CIDEr equal pycocoevalcap's, and their confidence intervals."""

import random
from typing import Any

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from training.evaluation.metrics import CorpusScores

WORDS = ["a", "dog", "cat", "runs", "sits", "on", "grass", "the", "brown", "water", "over", "two"]
SCORES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")


def write_corpus(seed: int, photos: int) -> tuple[list[str], list[list[str]]]:
    """Captions that share words with their references, the more the later in the corpus."""
    rng = random.Random(seed)

    def sentence() -> list[str]:
        return rng.choices(WORDS, k=rng.randint(2, 12))

    candidates, references = [], []
    for _ in range(photos):
        texts = [sentence() for _ in range(rng.randint(1, 5))]
        copied = list(rng.choice(texts))
        for _ in range(rng.randint(0, len(copied) - 1)):
            copied[rng.randrange(len(copied))] = rng.choice(WORDS)
        candidates.append(" ".join(copied[: rng.randint(1, len(copied))] + sentence()[: rng.randint(0, 4)]))
        references.append([" ".join(text) for text in texts])
    return candidates, references


def score(candidates: list[str], references: list[list[str]]) -> dict[str, Any]:
    return CorpusScores.of(candidates, references).summary()


def coco_scores(candidates: list[str], references: list[list[str]]) -> dict[str, float]:
    """What pycocoevalcap itself says."""
    truth = dict(enumerate(references))
    said = {number: [candidate] for number, candidate in enumerate(candidates)}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    rouge, _ = Rouge().compute_score(truth, said)
    cider, _ = Cider().compute_score(truth, said)
    return dict(zip(SCORES, (*bleu, rouge, cider), strict=True))


def assert_equal_to_pycocoevalcap(candidates: list[str], references: list[list[str]]) -> None:
    ours = CorpusScores.of(candidates, references).fractions()
    for name, value in coco_scores(candidates, references).items():
        assert ours[name] == pytest.approx(value, rel=0, abs=1e-6), name


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_pycocoevalcap(seed):
    assert_equal_to_pycocoevalcap(*write_corpus(seed, photos=3 + 14 * seed))


@pytest.mark.parametrize(
    "candidate",
    [
        "",
        "a",
        "a dog",
        "zebra",
        "a a a a a a a a",
        "a dog a dog a dog a dog",
        "a dog runs on grass",
        "a dog runs on grass " * 6,
        "grass on runs dog a",
        "été 犬 3",
    ],
)
def test_odd_captions_score_like_pycocoevalcap(candidate):
    others, references = write_corpus(11, photos=6)
    own = ["a dog runs on grass", "the dog", "a dog a dog"]
    assert_equal_to_pycocoevalcap([candidate, *others], [own, *references])
    assert_equal_to_pycocoevalcap([candidate] * 7, [own, *references])
    assert_equal_to_pycocoevalcap([candidate], [own])


def test_short_captions_score_like_pycocoevalcap():
    assert_equal_to_pycocoevalcap(["a dog", "cat"], [["a dog runs on grass", "a dog"], ["cat sits"]])


def test_scores_are_rounded_percentages():
    corpus = CorpusScores.of(*write_corpus(10, photos=9))
    scores = corpus.summary()
    assert {name: scores[name] for name in SCORES} == {
        name: round(100 * value, 2) for name, value in corpus.fractions().items()
    }


def test_subset_keeps_document_frequencies():
    candidates, references = write_corpus(12, photos=24)
    corpus, rows = CorpusScores.of(candidates, references), [1, 5, 6, 20]
    part = corpus.subset(rows)
    alone = CorpusScores.of([candidates[row] for row in rows], [references[row] for row in rows])
    assert part.fractions()["bleu_4"] == alone.fractions()["bleu_4"]
    assert part.fractions()["rouge_l"] == alone.fractions()["rouge_l"]
    assert part.fractions()["cider"] == pytest.approx(sum(corpus.cider[rows]) / len(rows))
    assert part.fractions()["cider"] != pytest.approx(alone.fractions()["cider"], abs=1e-3)


def test_subset_of_all_photos_is_the_whole():
    corpus = CorpusScores.of(*write_corpus(13, photos=8))
    assert corpus.subset(range(8)).summary() == corpus.summary()


def test_perfect_captions_score_bleu_100():
    _, references = write_corpus(1, photos=20)
    references = [[*texts, "a brown dog runs over grass"] for texts in references]
    candidates = [texts[number % len(texts)] for number, texts in enumerate(references)]
    scores = score(candidates, references)
    assert [scores[f"bleu_{n}"] for n in range(1, 5)] == [100.0] * 4
    assert scores["rouge_l"] == 100.0


def test_disjoint_captions_score_0():
    scores = score(["x y z w v", "u t s r q"], [["a dog runs on grass"], ["a cat sits on grass"]])
    assert [scores[name] for name in SCORES] == [0.0] * 6


def test_corpus_bleu_is_not_mean_bleu():
    candidates, references = write_corpus(2, photos=15)
    corpus = score(candidates, references)["bleu_4"]
    alone = [
        score([candidate], [texts])["bleu_4"] for candidate, texts in zip(candidates, references, strict=True)
    ]
    assert abs(corpus - sum(alone) / len(alone)) > 1


def test_bleu_uses_closest_then_shorter_reference():
    # Four words said; references of three and five are equally close: the shorter exacts no penalty.
    scores = score(["a dog runs on"], [["a dog runs", "a dog runs on grass"]])
    assert scores["bleu_1"] == 100.0


def test_brevity_penalty():
    full = score(["a brown dog runs on grass"], [["a brown dog runs on grass"]])["bleu_1"]
    short = score(["a brown dog"], [["a brown dog runs on grass"]])["bleu_1"]
    assert full == 100
    assert short == pytest.approx(100 * 2.718281828 ** (1 - 6 / 3), abs=0.01)


def test_all_references_count():
    candidates, references = write_corpus(3, photos=12)
    references = [[texts[0], *texts] for texts in references]
    fewer = score(candidates, [texts[:1] for texts in references])
    assert score(candidates, references)["bleu_1"] > fewer["bleu_1"]


def test_cider_depends_on_the_corpus():
    candidates, references = write_corpus(4, photos=20)
    whole, half = score(candidates, references), score(candidates[:10], references[:10])
    rest = score(candidates[10:], references[10:])
    assert abs(whole["cider"] - (half["cider"] + rest["cider"]) / 2) > 0.5
    assert score(candidates[:1], references[:1])["cider"] == 0


def test_intervals_contain_their_scores():
    scores = score(*write_corpus(5, photos=40))
    assert tuple(scores["intervals"]) == SCORES
    for name, (low, high) in scores["intervals"].items():
        assert low < scores[name] < high, name


def test_intervals_shrink_with_more_photos():
    few = score(*write_corpus(6, photos=20))["intervals"]
    many = score(*write_corpus(6, photos=320))["intervals"]
    for name in SCORES:
        width = few[name][1] - few[name][0]
        assert many[name][1] - many[name][0] < width / 2, name


def test_interval_of_mean_matches_theory():
    # Half of the photos score 1, half 0: the mean of n has a standard deviation of 0.5 / sqrt(n).
    references = [["a dog runs on grass"]] * 100
    candidates = ["a dog runs on grass", "x y z w v"] * 50
    low, high = score(candidates, references)["intervals"]["rouge_l"]
    assert low == pytest.approx(50 - 1.96 * 5, abs=1.5)
    assert high == pytest.approx(50 + 1.96 * 5, abs=1.5)


def test_scores_are_independent_of_order():
    candidates, references = write_corpus(7, photos=30)
    order = random.Random(0).sample(range(30), 30)
    scores = score(candidates, references)
    shuffled = score([candidates[i] for i in order], [references[i] for i in order])
    for name in SCORES:
        assert shuffled[name] == pytest.approx(scores[name], abs=0.011), name


def test_intervals_are_deterministic():
    corpus = write_corpus(8, photos=10)
    assert score(*corpus) == score(*corpus)


def test_scoring_prints_nothing(capsys):
    score(*write_corpus(9, photos=5))
    assert capsys.readouterr() == ("", "")


def two_captioners() -> tuple[CorpusScores, CorpusScores]:
    references = [["a dog runs on grass", "the dog runs"], ["a cat sits", "a grey cat sits down"]] * 5
    good = ["a dog runs on grass", "a cat sits"] * 5
    bad = ["a cat sits", "a dog runs on grass"] * 5
    return CorpusScores.of(good, references), CorpusScores.of(bad, references)


def test_difference_with_itself_is_zero():
    good, _ = two_captioners()
    for found in good.differences(good).values():
        assert found == {"difference": 0, "interval": [0, 0]}


def test_difference_lies_in_its_interval():
    good, bad = two_captioners()
    forth, back = good.differences(bad), bad.differences(good)
    assert forth.keys() == good.summary()["intervals"].keys()
    for name, found in forth.items():
        assert found["difference"] == pytest.approx(good.summary()[name] - bad.summary()[name], abs=0.011)
        assert found["interval"][0] - 0.01 <= found["difference"] <= found["interval"][1] + 0.01
        assert back[name]["difference"] == -found["difference"]
    assert forth["cider"]["interval"][0] > 0


def test_pooling_with_itself_changes_no_score():
    good, bad = two_captioners()
    assert CorpusScores.pooled([good, good]).summary() == good.summary()
    pooled, apart = CorpusScores.pooled([good, bad]).summary(), [corpus.summary() for corpus in (good, bad)]
    assert pooled["cider"] == pytest.approx((apart[0]["cider"] + apart[1]["cider"]) / 2, abs=0.01)
