"""The CIDEr-D reward: that of the COCO evaluation, with document frequencies of the training set."""

import random

import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from training.engine.cider_reward import CiderReward

END = 2


def random_captions(rng: random.Random, photos: int) -> list[list[list[int]]]:
    return [
        [
            [*(rng.randrange(4, 14) for _ in range(rng.randrange(1, 9))), END]
            for _ in range(rng.randrange(1, 6))
        ]
        for _ in range(photos)
    ]


def as_text(ids: list[int]) -> str:
    return " ".join(f"w{index}" for index in ids)


def official(candidates: list[list[int]], references: list[list[list[int]]]) -> list[float]:
    scorer = CiderScorer(n=4, sigma=6.0)
    for candidate, of_photo in zip(candidates, references, strict=True):
        scorer += (as_text(candidate), [as_text(ids) for ids in of_photo])
    return list(scorer.compute_score()[1])


@pytest.mark.parametrize("seed", range(4))
def test_reward_equals_pycocoevalcap_cider(seed):
    rng = random.Random(seed)
    references = random_captions(rng, 12)
    candidates = [rng.choice(random_captions(rng, 1)[0]) for _ in references]
    candidates[3] = references[3][0]  # a perfect one
    candidates[4] = [4, 4, 4, 4, 4, 4, END]  # one that repeats itself
    reward = CiderReward(references)
    found = [reward.score([mine], theirs)[0] for mine, theirs in zip(candidates, references, strict=True)]
    assert found == pytest.approx(official(candidates, references), abs=1e-9)


def test_document_frequencies_come_from_training_set():
    common, rare = [4, 5, END], [6, 7, END]
    reward = CiderReward([[common]] * 9 + [[rare]])
    of_common, of_rare = (reward.score([[*own[:2], 9, END]], [own])[0] for own in (common, rare))
    assert of_rare > of_common > 0


def test_finished_caption_earns_more_than_truncated():
    references = [[4, 5, 6, END], [4, 5, 7, END]]
    reward = CiderReward([references, [[8, 9, END]]])
    whole, cut = reward.score([[4, 5, 6, END], [4, 5, 6]], references)
    assert whole > cut


def test_samples_are_scored_separately():
    rng = random.Random(5)
    references = random_captions(rng, 6)
    reward = CiderReward(references)
    samples = random_captions(rng, 1)[0]
    together = reward.score(samples, references[0])
    assert together == [reward.score([sample], references[0])[0] for sample in samples]
    assert reward.score([references[0][0]], references[0])[0] == pytest.approx(
        max(reward.score([references[0][0], [13, 13, 13]], references[0]))
    )
