"""Features of a frozen encoder, computed once and cached on disk for all epochs."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from model import ModelConfig
from model.captioner import BATCH_SIZE
from model.encoder import Encoder
from model.files import sha256_bytes, temporary_path
from model.preprocess import Preprocess
from model.vocabulary import Vocabulary
from training.data.batches import Draw, Example, encode_captions, is_mirrored_draw
from training.data.caption_files import CaptionedPhoto


class FeatureDataset(Dataset[Example]):
    """Training photos as cached features, half of the draws mirrored."""

    def __init__(
        self,
        photos: Sequence[CaptionedPhoto],
        vocabulary: Vocabulary,
        features: np.ndarray,
        *,
        end_after_truncation: bool = False,
    ) -> None:
        """``features``: (photos, 2, L, F), see ``cached_features``; for the rest see ``encode_captions``."""
        self._photos = photos
        self._features = features
        self._encode = partial(
            encode_captions, vocabulary=vocabulary, end_after_truncation=end_after_truncation
        )

    def __getitem__(self, draw: Draw) -> Example:
        is_mirrored = is_mirrored_draw(draw)
        features = torch.tensor(self._features[draw.photo, int(is_mirrored)], dtype=torch.float32)  # (L, F)
        return Example(features, self._encode(self._photos[draw.photo], is_mirrored=is_mirrored))


def cached_features(
    path: Path, encoder: Encoder, config: ModelConfig, photos: Sequence[CaptionedPhoto]
) -> np.ndarray:
    """Features of photos and of their mirror images, read from ``path`` if it has them.

    Returns:
        (photos, 2, L, F) in half precision, mapped from the file; [:, 1] are the mirror images.

    Raises:
        DataError: a photo cannot be read.
    """
    fingerprint = _fingerprint(encoder, config, photos)
    label = path.with_suffix(".sha256")  # of what the features depend on; written last, removed first
    if path.exists() and label.exists() and label.read_text(errors="replace").strip() == fingerprint:
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
    temporary = temporary_path(path)
    shape = (len(photos), 2, *encoder.feature_shape)
    try:
        features = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        filled = 0
        for pairs in encoded_pairs(encoder.eval(), Preprocess(config), photos):
            features[filled : filled + len(pairs)] = pairs.half().numpy()
            filled += len(pairs)
        features.flush()
        label.unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # large: after Ctrl-C or an error it would fill the disk
    label.write_text(f"{fingerprint}\n")
    return features


def encoded_pairs(
    encoder: Encoder, preprocess: Preprocess, photos: Sequence[CaptionedPhoto]
) -> Iterator[Tensor]:
    """Features of photos and of their mirror images, in batches (B, 2, L, F) on the CPU.

    Shows a progress bar.

    Raises:
        DataError: a photo cannot be read.
    """
    device = next(encoder.parameters()).device
    for start in tqdm(range(0, len(photos), BATCH_SIZE), desc="encoding photos", unit="batch"):
        images = [photo.read() for photo in photos[start : start + BATCH_SIZE]]
        both = torch.cat([_with_mirror(image, preprocess) for image in images])
        with torch.inference_mode():
            encoded = encoder(both.to(device)).cpu()  # (2B, L, F)
        yield encoded.view(len(images), 2, *encoded.shape[1:])


def _with_mirror(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """The photo and its mirror image, (2, 3, S, S)."""
    upright = preprocess(image)
    return torch.stack((upright, upright.flip(2)))


def _fingerprint(encoder: Encoder, config: ModelConfig, photos: Sequence[CaptionedPhoto]) -> str:
    """A hash of the encoder's weights and precision, of its preprocessing, and of the photo files."""
    settings = (
        encoder.name,
        encoder.feature_shape,
        config.image_size,
        config.mean,
        config.std,
        torch.is_autocast_enabled(next(encoder.parameters()).device.type),
    )
    parts = [repr(settings).encode()]
    for name, value in encoder.state_dict().items():
        parts += (name.encode(), value.cpu().contiguous().numpy().tobytes())
    for photo in photos:
        file = photo.path.stat()
        parts.append(f"{photo.path.resolve()} {file.st_size} {file.st_mtime_ns}".encode())
    return sha256_bytes(b"".join(parts))
