"""The configuration of a model: the shapes of its weights and the preprocessing of its images."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from model.errors import CheckpointError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels scaled to 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


MAX_SIZE = 1_000_000  # no network is larger; a greater number is a typing error or a damaged file
MAX_LAYERS = 100

CAPTION_LENGTH = 20  # default maximum length of a caption in words
MAX_TOKENS = 200  # upper limit of the maximum length

# Values of the fields of type str; model.encoder and model.attention know their own.
CELLS = ("lstm", "gru")
GRIDS = ("last", "joined")
QUERIES = ("state", "state_and_word")
GATES = ("scalar", "vector", "off")
TOKENS = ("words", "characters", "pieces")


_LIMITS = {
    **dict.fromkeys(("vocabulary_size", "image_size", "annotation_dim", "attention_dim"), (1, MAX_SIZE)),
    **dict.fromkeys(("attention_heads", "embedding_dim", "hidden_dim", "phrase_dim"), (1, MAX_SIZE)),
    "score_blur": (0, MAX_LAYERS),
    "grid_layers": (0, MAX_LAYERS),
    "phrases": (0, MAX_SIZE),
    "caption_length": (1, MAX_TOKENS),
}


def _option(default: Any, meaning: str) -> Any:
    """A field that training can set, with its help on the command line."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Stored in every checkpoint; the network and its preprocessing are built from it."""

    vocabulary_size: int  # V, special tokens included
    tokens: str = _option("words", "kind of tokens; scripts without spaces need characters or pieces")
    language: str = _option(
        "en", "ISO 639 code of the captions' language; only English captions have word rules in decoding"
    )
    caption_length: int = CAPTION_LENGTH  # default maximum length in tokens, see DecodingOptions
    encoder: str = _option(
        "efficientnet_v2_b0",
        "efficientnet_v2_b0, tiny_cnn, or a torchvision classification CNN such as resnet50",
    )
    image_size: int = _option(224, "side S of the square input image, in pixels")
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    grid: str = _option(
        "last", "feature grid: the encoder's last, or that joined with one of twice its rows and columns"
    )
    attention: str = _option("additive", "kind of attention")  # a name known to model.attention
    query: str = _option("state", "attention query: the decoder's state, or state and previous word")
    attention_dim: int = _option(256, "attention dimension A")
    attention_heads: int = _option(8, "number of heads of multi_head attention and of the grid layers")
    score_blur: int = _option(0, "smoothing passes over the attention scores before the softmax")
    grid_layers: int = _option(0, "number of self-attention layers over the grid before the decoder")
    annotation_dim: int = _option(512, "annotation dimension D")
    embedding_dim: int = _option(512, "word embedding dimension E")
    hidden_dim: int = _option(512, "hidden dimension H of the decoder")
    cell: str = _option("lstm", "recurrent cell of the decoder")
    gate: str = _option("scalar", "gate beta on the context: one scalar, one value per unit, or none")
    phrases: int = 0  # P, size of the phrase head that training.phrases adds; 0: none
    phrase_dim: int = 512  # hidden dimension of the phrase head
    dropout: float = _option(0.4, "dropout on word embedding and deep output")

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
        """Refuse values that no network can have, naming the field."""
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise CheckpointError(
                    f"The model configuration has {name} = {value!r}; "
                    f"it must be a whole number from {low} to {high}."
                )
        for name, choices in (
            ("tokens", TOKENS),
            ("grid", GRIDS),
            ("query", QUERIES),
            ("cell", CELLS),
            ("gate", GATES),
        ):
            if getattr(self, name) not in choices:
                raise CheckpointError(
                    f"The model configuration has {name} = {getattr(self, name)!r}; "
                    f"it must be one of {', '.join(choices)}."
                )
        if not (isinstance(self.language, str) and re.fullmatch("[a-z]{2,3}", self.language)):
            raise CheckpointError(
                f"The model configuration has language = {self.language!r}; "
                "it must be an ISO 639 code such as en or zh."
            )
        if self.grid_layers and (self.annotation_dim % self.attention_heads or self.annotation_dim % 4):
            raise CheckpointError(
                f"Grid layers need an annotation_dim ({self.annotation_dim}) that is a multiple of 4 and of "
                f"attention_heads ({self.attention_heads})."
            )
        if not (isinstance(self.dropout, int | float) and 0 <= self.dropout < 1):
            raise CheckpointError(
                f"The model configuration has dropout = {self.dropout!r}; it must lie in [0, 1)."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise CheckpointError(
                "The model configuration needs three means and three positive standard deviations."
            )
