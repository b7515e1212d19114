"""The splits of a dataset, and how photos that come without one are split."""

from collections.abc import Collection

from model.files import sha256_bytes

SPLITS = ("train", "restval", "val", "test")  # those of Karpathy; training uses train and restval
HELD_OUT = 0.1  # share of photos without a split that become val, and share that become test


def split_by_name(names: Collection[str]) -> dict[str, str]:
    """Assign a split to every photo of a set that has none: 80 % train, 10 % val, 10 % test.

    Only a hash of the name decides (the path inside the images folder, not the content or the order), so
    adding or removing photos never moves another one from training to evaluation. In a set so small that
    no hash falls into val or test, the photos with the smallest hashes are taken, so that three photos are
    enough to fill every split. As photos are added, these return to the split of their hash.
    """
    order = sorted(names, key=_hash_fraction)
    count = len(order)
    val = sum(_hash_fraction(name) < HELD_OUT for name in order)  # where val ends, and below where test ends
    test = sum(_hash_fraction(name) < 2 * HELD_OUT for name in order)
    val = min(max(val, 1), max(count - 2, count // 2))  # of two photos one is val and one train
    test = min(max(test, val + 1), max(count - 1, 0))
    splits = ["val"] * val + ["test"] * (test - val) + ["train"] * (count - test)
    return dict(zip(order, splits, strict=True))


def _hash_fraction(name: str) -> float:
    """A name's hash as a number from 0 to 1."""
    return int(sha256_bytes(name.encode())[:16], 16) / 2**64
