"""Cached encoder features: when they are reused and when recomputed."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import draw_photo
from PIL import Image

from model.encoder import Encoder
from model.preprocess import Preprocess
from model.vocabulary import Vocabulary
from training.data.batches import Draw, is_mirrored_draw
from training.data.caption_files import CaptionedPhoto
from training.data.features import FeatureDataset, _fingerprint, cached_features
from training.errors import DataError


@pytest.fixture
def photos(tmp_path):
    photos = []
    for seed in range(3):
        path = tmp_path / f"{seed}.png"
        draw_photo(seed).save(path)
        captions = (("a", "dog"), ("a", "cat", "sits"))
        photos.append(CaptionedPhoto(path=path, captions=captions, split="train"))
    return photos


@pytest.fixture
def encoder(config):
    torch.manual_seed(1)
    return Encoder(config.encoder, config.image_size)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.npy"


@pytest.fixture
def encoded(encoder):
    """A list that grows with every photo the encoder is shown."""
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.extend(range(len(inputs[0]))))
    return seen


@torch.no_grad()
def encode(encoder, config, image):
    return encoder(Preprocess(config)(image).unsqueeze(0))[0].numpy()


def test_features_are_of_photo_and_mirror_image(path, encoder, config, photos):
    features = cached_features(path, encoder, config, photos)
    assert features.shape == (3, 2, encoder.rows * encoder.columns, encoder.feature_dim)
    for number, photo in enumerate(photos):
        image = photo.read()
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        upright = encode(encoder, config, image)
        np.testing.assert_allclose(features[number, 0], upright, rtol=2e-3, atol=2e-3)
        # Resampling the mirror image may round a level of 255 differently than mirroring the resampled.
        np.testing.assert_allclose(features[number, 1], encode(encoder, config, mirrored), atol=0.05)
        assert np.abs(upright - features[number, 1].astype(np.float32)).max() > 0.2


def test_features_ignore_encoder_mode(path, encoder, config, photos):
    encoder = Encoder("mobilenet_v3_small", config.image_size)
    first = np.array(cached_features(path, encoder.train(), config, photos))
    other = np.array(cached_features(path.with_name("other.npy"), encoder.eval(), config, photos))
    assert np.array_equal(first, other)


def test_features_are_computed_once(path, encoder, config, photos, encoded):
    first = np.array(cached_features(path, encoder, config, photos))
    assert len(encoded) == 2 * len(photos)
    again = cached_features(path, encoder, config, photos)
    assert len(encoded) == 2 * len(photos)
    assert np.array_equal(first, again)


def test_other_weights_recompute_features(path, encoder, config, photos, encoded):
    first = np.array(cached_features(path, encoder, config, photos))
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.5)
    changed = cached_features(path, encoder, config, photos)
    assert len(encoded) == 4 * len(photos)
    assert not np.array_equal(first, changed)


@pytest.mark.parametrize("order", [[0, 1], [1, 0, 2]])
def test_other_photos_recompute_features(path, encoder, config, photos, order):
    first = np.array(cached_features(path, encoder, config, photos))
    features = cached_features(path, encoder, config, [photos[number] for number in order])
    assert np.array_equal(features, first[order])


def test_other_precision_changes_fingerprint(config, photos):
    class Elsewhere(Encoder):
        """On a GPU that this machine need not have."""

        def parameters(self, recurse=True):
            return iter([SimpleNamespace(device=torch.device("cuda"))])

    here = Encoder(config.encoder, config.image_size)
    elsewhere = Elsewhere(config.encoder, config.image_size)
    elsewhere.load_state_dict(here.state_dict())
    found = {}
    for device in ("cpu", "cuda"):
        before = torch.is_autocast_enabled(device)
        torch.set_autocast_enabled(device, True)
        found[device] = [_fingerprint(encoder, config, photos) for encoder in (here, elsewhere)]
        torch.set_autocast_enabled(device, before)
    plain = _fingerprint(here, config, photos)
    assert found["cpu"][1] == found["cuda"][0] == plain
    assert found["cpu"][0] == found["cuda"][1] != plain


def test_other_image_size_recomputes_features(path, encoder, config, photos):
    cached_features(path, encoder, config, photos)
    larger = type(config)(**config.as_record() | {"image_size": 64})
    other = Encoder(config.encoder, larger.image_size)
    other.load_state_dict(encoder.state_dict())
    features = cached_features(path, other, larger, photos)
    assert features.shape[2] == other.rows * other.columns != encoder.rows * encoder.columns


def test_partial_features_are_recomputed(path, encoder, config, photos, encoded):
    good = photos[2].path.read_bytes()
    photos[2].path.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"2\.png"):
        cached_features(path, encoder, config, photos)
    assert not path.exists()
    photos[2].path.write_bytes(good)
    encoded.clear()
    features = cached_features(path, encoder, config, photos)
    assert len(encoded) == 2 * len(photos)
    assert np.abs(np.array(features)).max(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_encoding_leaves_no_file(path, encoder, config, photos, monkeypatch, error):
    def stop(*arguments):
        raise error

    before = set(path.parent.iterdir())
    monkeypatch.setattr(Encoder, "forward", stop)
    with pytest.raises(error):
        cached_features(path, encoder, config, photos)
    assert set(path.parent.iterdir()) == before


def test_interrupted_replace_recomputes_features(path, encoder, config, photos, monkeypatch):
    first = np.array(cached_features(path, encoder, config, photos))
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.no_grad():
        next(encoder.parameters()).mul_(1.5)

    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            cached_features(path, encoder, config, photos)
    encoder.load_state_dict(weights)
    assert np.array_equal(cached_features(path, encoder, config, photos), first)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", None])
def test_features_without_valid_label_are_recomputed(path, encoder, config, photos, encoded, content):
    cached_features(path, encoder, config, photos)
    labels = [found for found in path.parent.iterdir() if found.suffix not in (".png", ".npy")]
    assert len(labels) == 1
    if content is None:
        labels[0].unlink()
    else:
        labels[0].write_text(content)
    cached_features(path, encoder, config, photos)
    assert len(encoded) == 4 * len(photos)


def test_cached_example_matches_drawn_photo(path, encoder, config, photos, vocabulary):
    features = cached_features(path, encoder, config, photos)
    dataset = FeatureDataset(photos, vocabulary, features)
    seen = set()
    for seed in range(8):
        draw = Draw(1, seed)
        inputs, captions = dataset[draw]
        mirrored = is_mirrored_draw(draw)
        seen.add(mirrored)
        assert inputs.dtype == torch.float32
        assert torch.equal(inputs, torch.tensor(features[1, int(mirrored)], dtype=torch.float32))
        assert captions == [[*vocabulary.encode(words), Vocabulary.end_id] for words in photos[1].captions]
    assert seen == {True, False}
