"""The numbers that fix a network's weights and the preparation of its pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from model.errors import CheckpointError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels scaled to 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Stored in every checkpoint; rebuilds the network and its preprocessing."""

    vocabulary_size: int  # V, special tokens included
    encoder: str = "efficientnet_v2_b0"  # a name known to model.encoder
    image_size: int = 224  # S: pixels a side of the square the encoder is fed
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    annotation_dim: int = 512  # D: width of an annotation after its projection
    attention: str = "additive"  # a name known to model.attention
    attention_dim: int = 256  # A
    embedding_dim: int = 512  # E
    hidden_dim: int = 512  # H
    dropout: float = 0.4  # share of units dropped in training, of the word embedding and deep output

    def as_record(self) -> dict[str, Any]:
        """The configuration as plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> ModelConfig:
        """The configuration that ``as_record`` wrote.

        Raises:
            CheckpointError: a field is unknown, missing or of the wrong type.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(record) - known):
            raise CheckpointError(
                f"The model configuration has unknown fields {', '.join(unknown)}; "
                "it was probably written by a newer version of this program."
            )
        try:
            values = record | {name: tuple(map(float, record[name])) for name in ("mean", "std")}
            config = cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"The model configuration is incomplete or malformed: {error}.") from None
        config._check()
        return config

    def _check(self) -> None:
        """Refuse values no network can have, so that a damaged file is told by name."""
        for name in (
            "vocabulary_size",
            "image_size",
            "annotation_dim",
            "attention_dim",
            "embedding_dim",
            "hidden_dim",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CheckpointError(
                    f"The model configuration has {name} = {value!r}; it must be a positive whole number."
                )
        if not (isinstance(self.dropout, int | float) and 0 <= self.dropout < 1):
            raise CheckpointError(
                f"The model configuration has dropout = {self.dropout!r}; it must lie in [0, 1)."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise CheckpointError(
                "The model configuration needs three means and three positive standard deviations."
            )
