"""The numbers that fix a network's weights and the preparation of its pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from model.errors import CheckpointError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels scaled to 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


# No network is this large: a number beyond is a damaged file or a slip of the hand.
LARGEST = 1_000_000
MOST_LAYERS = 100

# Tokens of a caption.
CAPTION_LENGTH = 20  # at most, if nobody says otherwise and the tokens are words
MOST_TOKENS = 200  # no caption is written longer, whatever anybody says

# What the fields that are words may be; model.encoder and model.attention know their own names.
CELLS = ("lstm", "gru")
GRIDS = ("last", "joined")
QUERIES = ("state", "state_and_word")
GATES = ("scalar", "vector", "off")
TOKENS = ("words", "characters", "pieces")


def _option(default: Any, meaning: str) -> Any:
    """A field that training can set; its meaning stands in the help of the command line."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Stored in every checkpoint; rebuilds the network and its preprocessing."""

    vocabulary_size: int  # V, special tokens included
    tokens: str = _option(
        "words", "what captions are made of; scripts without spaces need characters or pieces"
    )
    caption_length: int = CAPTION_LENGTH  # tokens at most, unless DecodingOptions say otherwise
    encoder: str = _option(
        "efficientnet_v2_b0",
        "efficientnet_v2_b0, tiny_cnn, or a torchvision classification CNN such as resnet50",
    )
    image_size: int = _option(224, "S, pixels a side of the square the encoder is fed")
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    grid: str = _option(
        "last", "the encoder's last grid, or that joined with one of twice its rows and columns"
    )
    attention: str = _option("additive", "kind of attention")  # a name known to model.attention
    query: str = _option("state", "what attention looks with: the decoder's state, or the last word too")
    attention_dim: int = _option(256, "width A of what queries and keys are compared in")
    attention_heads: int = _option(8, "heads of multi_head attention and of the grid layers")
    score_blur: int = _option(0, "times that scores are averaged over neighbouring cells before the softmax")
    grid_layers: int = _option(0, "layers of self-attention over the grid before the decoder")
    annotation_dim: int = _option(512, "width D of an annotation after its projection")
    embedding_dim: int = _option(512, "width E of a word's embedding")
    hidden_dim: int = _option(512, "width H of the decoder's state")
    cell: str = _option("lstm", "recurrent cell of the decoder")
    gate: str = _option("scalar", "gate beta on the context: a number, one for each unit, or none")
    phrases: int = 0  # P of the phrase head, which training.phrases adds; 0: there is none
    phrase_dim: int = 512  # width of the layer before it
    evidence: int = 0  # W of the word detector, which training.evidence adds; 0: there is none
    evidence_dim: int = 256  # width of the layers in it
    endings: int = 0  # rows of the table of phrases that no caption ends on; 0: there is none
    dropout: float = _option(0.4, "share of units dropped in training, of word embedding and deep output")

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
            "attention_heads",
            "embedding_dim",
            "hidden_dim",
            "phrase_dim",
            "evidence_dim",
        ):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise CheckpointError(
                    f"The model configuration has {name} = {value!r}; "
                    f"it must be a positive whole number, at most {LARGEST}."
                )
        for name, most in (
            ("score_blur", MOST_LAYERS),
            ("grid_layers", MOST_LAYERS),
            ("phrases", LARGEST),
            ("evidence", LARGEST),
            ("endings", LARGEST),
        ):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                raise CheckpointError(
                    f"The model configuration has {name} = {value!r}; "
                    f"it must be a whole number from 0 to {most}."
                )
        if type(self.caption_length) is not int or not 1 <= self.caption_length <= MOST_TOKENS:
            raise CheckpointError(
                f"The model configuration has caption_length = {self.caption_length!r}; "
                f"it must be a whole number from 1 to {MOST_TOKENS}."
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
