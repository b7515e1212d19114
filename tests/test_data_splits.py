"""split_by_name: shares, stability and tiny sets."""

import random
from collections import Counter

import pytest

from training.data.splits import split_by_name


def names(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.getrandbits(40)}.jpg" for _ in range(count)]


def test_split_is_80_10_10():
    shares = Counter(split_by_name(names(20_000)).values())
    assert shares["train"] == pytest.approx(16_000, rel=0.03)
    assert shares["val"] == pytest.approx(2_000, rel=0.1)
    assert shares["test"] == pytest.approx(2_000, rel=0.1)


@pytest.mark.parametrize("count", [300, 3_000])
def test_adding_photos_moves_no_other_photo(count):
    everything = names(2 * count)
    whole = split_by_name(everything)
    part = split_by_name(everything[:count])
    assert part == {name: whole[name] for name in everything[:count]}
    assert split_by_name(everything[::-1]) == whole


@pytest.mark.parametrize("count", [3, 10, 50])
def test_three_photos_fill_every_split(count):
    for seed in range(100):
        few = names(count, seed)
        splits = split_by_name(few)
        assert set(splits.values()) == {"train", "val", "test"}
        assert split_by_name(few[::-1]) == splits


def test_growing_set_never_moves_training_photos():
    for seed in range(20):
        many = names(60, seed)
        before = split_by_name(many[:10])
        for count in range(11, 60):
            now = split_by_name(many[:count])
            assert all(now[name] == "train" for name, split in before.items() if split == "train")
            before = now


def test_one_and_two_photos_train_first():
    assert split_by_name([]) == {}
    assert list(split_by_name(["a"]).values()) == ["train"]
    assert sorted(split_by_name(["a", "b"]).values()) == ["train", "val"]
