"""Examples and batches: captions stay with their photo, and sampling is deterministic."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, draw_photo
from PIL import Image
from torch.nn.utils.rnn import pack_padded_sequence

from model import tokenizer
from model.config import MAX_TOKENS
from model.vocabulary import Vocabulary
from training.data.batches import (
    MAX_CAPTION_WORDS,
    Draw,
    EpochSampler,
    Example,
    PhotoDataset,
    batches,
    collate,
    encode_captions,
    is_mirrored_draw,
    mirror_words,
)
from training.data.caption_files import CaptionedPhoto
from training.data.dataset import load_photos
from training.data.features import FeatureDataset
from training.errors import DataError


def write_karpathy(folder: Path, listed: Iterable[tuple[str, str, list[str]]]) -> Path:
    """Photos in ``folder``/images and the Karpathy JSON that lists (filename, split, captions)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (filename, split, captions) in enumerate(listed):
        draw_photo(number).save(folder / "images" / filename)
        sentences = [{"raw": caption, "tokens": ["not", "used"]} for caption in captions]
        entries.append({"filename": filename, "split": split, "sentences": sentences})
    path = folder / "captions.json"
    path.write_text(json.dumps({"dataset": "tiny", "images": entries}), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    write_karpathy(
        tmp_path,
        [
            ("a.png", "train", ["A dog runs .", "the dog is left of a cat"]),
            ("b.png", "restval", ["a cat sits on grass"]),
            ("c.png", "val", ["a cat", " . "]),
            ("d.png", "test", ["a dog"]),
        ],
    )
    return tmp_path


@pytest.fixture
def photos(folder):
    return load_photos([(folder / "captions.json", folder / "images")])


@pytest.fixture
def dataset(photos, vocabulary, config):
    return PhotoDataset(photos, vocabulary, config)


def seed_of(*, mirrored: bool) -> int:
    return next(seed for seed in range(100) if is_mirrored_draw(Draw(0, seed)) == mirrored)


def test_mirroring_swaps_left_and_right():
    words = ("the", "leftmost", "dog", "left", "of", "the", "rightmost", "cat", "looks", "right")
    mirrored = ("the", "rightmost", "dog", "right", "of", "the", "leftmost", "cat", "looks", "left")
    assert mirror_words(words) == mirrored
    assert mirror_words(mirrored) == words


def test_mirrored_photo_has_mirrored_captions(photos):
    words = ["the", "dog", "is", "left", "of", "a", "cat", "right"]
    vocabulary = Vocabulary(words)
    upright = encode_captions(photos[0], vocabulary, is_mirrored=False)[1]
    mirrored = encode_captions(photos[0], vocabulary, is_mirrored=True)[1]
    assert vocabulary.decode(upright[:-1]) == ["the", "dog", "is", "left", "of", "a", "cat"]
    assert vocabulary.decode(mirrored[:-1]) == ["the", "dog", "is", "right", "of", "a", "cat"]


def captioned(*captions: tuple[str, ...]) -> CaptionedPhoto:
    return CaptionedPhoto(path=Path("a.png"), captions=captions, split="train")


@pytest.mark.parametrize("extra", [-1, 0, 1, 20])
def test_only_whole_captions_end(vocabulary, extra):
    [ids] = encode_captions(captioned(("dog",) * (MAX_CAPTION_WORDS + extra)), vocabulary, is_mirrored=False)
    words = vocabulary.encode(["dog"] * min(MAX_CAPTION_WORDS, MAX_CAPTION_WORDS + extra))
    assert ids == (words if extra > 0 else [*words, Vocabulary.end_id])


def test_only_whole_captions_of_characters_end():
    vocabulary = Vocabulary(["一"], tokenizer.CHARACTERS)
    photo = captioned(("一" * MAX_TOKENS,), ("一" * (MAX_TOKENS + 1),))
    whole, truncated = encode_captions(photo, vocabulary, is_mirrored=False)
    assert whole == [*truncated, Vocabulary.end_id]
    assert len(truncated) == MAX_TOKENS


def test_older_runs_also_end_truncated_captions(vocabulary):
    photo = captioned(("dog",) * (MAX_CAPTION_WORDS + 1), ("dog",))
    captions = encode_captions(photo, vocabulary, is_mirrored=False, end_after_truncation=True)
    assert [ids[-1] for ids in captions] == [Vocabulary.end_id] * 2


def test_datasets_teach_no_end_after_truncation(photos, vocabulary, config):
    long = replace(photos[0], captions=(("dog",) * 40,))
    for end_after_truncation in (False, True):
        options = {"end_after_truncation": end_after_truncation}
        for dataset in (
            PhotoDataset([long], vocabulary, config, **options),
            FeatureDataset([long], vocabulary, np.zeros((1, 2, 3, 4), np.float16), **options),
        ):
            [ids] = dataset[Draw(0, 0)].captions
            assert (ids[-1] == Vocabulary.end_id) is end_after_truncation
            batch = collate([dataset[Draw(0, 0)]])
            assert (Vocabulary.end_id in batch.targets) is end_after_truncation
            assert batch.references() == [[ids]]


def test_half_of_the_examples_are_mirrored():
    mirrored = sum(is_mirrored_draw(Draw(0, seed)) for seed in range(2000))
    assert 900 < mirrored < 1100


def test_examples_are_deterministic_per_seed(dataset):
    torch.manual_seed(1)
    first = dataset[Draw(0, 7)]
    torch.manual_seed(2)
    again, other = dataset[Draw(0, 7)], dataset[Draw(0, 8)]
    assert torch.equal(first.inputs, again.inputs)
    assert first.captions == again.captions
    assert not torch.equal(first.inputs, other.inputs)


def test_examples_do_not_consume_global_rng(dataset):
    before = torch.get_rng_state()
    _ = dataset[Draw(0, 7)]
    assert torch.equal(before, torch.get_rng_state())


def test_example_has_input_size_and_all_captions(dataset, config):
    inputs, captions = dataset[Draw(0, seed_of(mirrored=False))]
    assert inputs.shape == (3, config.image_size, config.image_size)
    assert inputs.dtype == torch.float32
    assert len(captions) == 2
    assert all(isinstance(ids, list) for ids in captions)


def test_mirrored_examples_show_mirrored_photo(folder, photos, vocabulary, config):
    left_black = draw_photo(0, size=(64, 48))
    left_black.paste((0, 0, 0), (0, 0, 32, 48))
    left_black.paste((255, 255, 255), (32, 0, 64, 48))
    left_black.save(photos[0].path)
    dataset = PhotoDataset(photos, vocabulary, config)
    upright = dataset[Draw(0, seed_of(mirrored=False))].inputs
    mirrored = dataset[Draw(0, seed_of(mirrored=True))].inputs
    assert upright[:, :, 0].mean() < upright[:, :, -1].mean()
    assert mirrored[:, :, 0].mean() > mirrored[:, :, -1].mean()


def test_crops_cover_both_ends_of_wide_photos(tmp_path, vocabulary, config):
    wide = Image.new("RGB", (400, 40))
    wide.paste((255, 0, 0), (0, 0, 60, 40))
    wide.paste((0, 0, 255), (340, 0, 400, 40))
    wide.save(tmp_path / "wide.png")
    photo = CaptionedPhoto(path=tmp_path / "wide.png", captions=(("a",),), split="train")
    dataset = PhotoDataset([photo], vocabulary, config)
    for seed in range(20):
        left, right = dataset[Draw(0, seed)].inputs[:, :, [0, -1]].mean(dim=1).T
        assert (left - right).abs().max() > 0.5 or left.abs().max() > 0.5


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_workers_do_not_change_batches(dataset):
    def drawn(workers: int) -> list[torch.Tensor]:
        sampler = EpochSampler(4, 2, seed=3, epoch=0, skip=0)
        return [part for batch in batches(dataset, sampler, workers=workers) for part in batch]

    here, elsewhere = drawn(0), drawn(2)
    assert len(here) == 2 * 5
    assert all(torch.equal(one, other) for one, other in zip(here, elsewhere, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_photo_damaged_after_listing_is_named(photos, dataset, workers):
    photos[2].path.write_bytes(b"damaged")
    sampler = EpochSampler(4, 2, seed=3, epoch=0, skip=0)
    with pytest.raises(DataError, match=r"^The photo .*c\.png cannot be read: .*$") as caught:
        list(batches(dataset, sampler, workers=workers))
    assert "\n" not in str(caught.value)


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(4)
    lengths = [(3, 7), (5,), (1, 7, 2)]
    examples = []
    for photo, of_one in enumerate(lengths):
        captions = [
            [*torch.randint(4, 4 + len(WORDS), (length,), generator=generator).tolist(), Vocabulary.end_id]
            for length in of_one
        ]
        examples.append(Example(torch.full((3, 2, 2), float(photo)), captions))
    return examples


def test_batch_is_sorted_by_caption_length(examples):
    batch = collate(examples)
    assert batch.lengths.tolist() == [8, 8, 6, 4, 3, 2]  # the end token counted
    owners = batch.owners.tolist()
    assert owners == [0, 2, 1, 0, 2, 2]
    fed = [row[1:length].tolist() for row, length in zip(batch.words, batch.lengths, strict=True)]
    for owner, ids in zip(owners, fed, strict=True):
        assert [*ids, Vocabulary.end_id] in examples[owner].captions
    assert torch.equal(batch.inputs, torch.stack([example.inputs for example in examples]))


def test_targets_are_packed_and_shifted_by_one(examples):
    batch = collate(examples)
    assert (batch.words[:, 0] == Vocabulary.start_id).all()
    ahead = torch.zeros_like(batch.words)
    ahead[:, :-1] = batch.words[:, 1:]
    rows = torch.arange(len(ahead))
    ahead[rows, batch.lengths - 1] = Vocabulary.end_id
    assert torch.equal(batch.targets, pack_padded_sequence(ahead, batch.lengths, batch_first=True).data)


def test_targets_have_no_padding_and_one_end_each(examples):
    batch = collate(examples)
    assert len(batch.targets) == batch.lengths.sum()
    assert not (batch.targets == Vocabulary.pad_id).any()
    assert (batch.targets == Vocabulary.end_id).sum() == len(batch.lengths)
    assert not (batch.words == Vocabulary.end_id).any()


def test_epoch_draws_every_photo_once():
    drawn = [draw for batch in EpochSampler(23, 4, seed=0, epoch=2, skip=0) for draw in batch]
    assert sorted(draw.photo for draw in drawn) == list(range(23))
    assert len({draw.seed for draw in drawn}) == 23


def test_only_last_batch_is_partial():
    sampler = EpochSampler(23, 4, seed=0, epoch=2, skip=0)
    assert [len(batch) for batch in sampler] == [4, 4, 4, 4, 4, 3]
    assert len(sampler) == 6


def test_order_depends_on_seed_and_epoch_only():
    def order(seed: int, epoch: int) -> list[list[Draw]]:
        return list(EpochSampler(23, 4, seed=seed, epoch=epoch, skip=0))

    assert order(1, 5) == order(1, 5)
    assert order(1, 5) != order(1, 6)
    assert order(1, 5) != order(2, 5)


@pytest.mark.parametrize("skip", range(7))
def test_resumed_epoch_is_the_rest_of_the_epoch(skip):
    whole = list(EpochSampler(23, 4, seed=1, epoch=3, skip=0))
    rest = EpochSampler(23, 4, seed=1, epoch=3, skip=skip)
    assert list(rest) == whole[skip:]
    assert len(rest) == len(whole) - skip
