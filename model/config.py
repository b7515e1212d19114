"""The configuration of a model: the shapes of its weights and the preprocessing of its images."""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from model.errors import CheckpointError
from model.options import check_options, option

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels scaled to 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_SIZE = 1_000_000  # no network is larger; a greater number is a typing error or a damaged file
MAX_IMAGE_SIZE = 4096  # pixels a side; memory grows with its square, so a greater number is an error as well
MAX_LAYERS = 100

CAPTION_LENGTH = 20  # default maximum length of a caption in words
MAX_TOKENS = 200  # upper limit of the maximum length

# Values of the fields of type str; model.encoder and model.attention know their own.
CELLS = ("lstm", "gru")
GRIDS = ("last", "joined")
QUERIES = ("state", "state_and_word")
GATES = ("scalar", "vector", "off")
TOKENS = ("words", "characters", "pieces")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Stored in every checkpoint; the network and its preprocessing are built from it."""

    vocabulary_size: int = option(kind=int, low=1, high=MAX_SIZE)  # V, special tokens included
    tokens: str = option(
        "words", "kind of tokens; scripts without spaces need characters or pieces", choices=TOKENS
    )
    language: str = option("en", "ISO 639 code of the captions; only English has word rules in decoding")
    caption_length: int = option(CAPTION_LENGTH, low=1, high=MAX_TOKENS)  # default maximum length in tokens
    encoder: str = option(
        "efficientnet_v2_b0",
        "efficientnet_v2_b0, tiny_cnn, or a torchvision classification CNN such as resnet50",
    )
    image_size: int = option(224, "side S of the square input image, in pixels", low=1, high=MAX_IMAGE_SIZE)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    grid: str = option(
        "last", "the encoder's last feature grid, or that joined with one of twice the size", choices=GRIDS
    )
    attention: str = option("additive", "attention mechanism")  # a name known to model.attention
    query: str = option(
        "state", "attention query: the decoder's state, alone or with the last word", choices=QUERIES
    )
    attention_dim: int = option(256, "attention dimension A", low=1, high=MAX_SIZE)
    attention_heads: int = option(8, "heads of multi_head attention and grid layers", low=1, high=MAX_SIZE)
    score_blur: int = option(
        0, "smoothing passes over the attention scores before the softmax", low=0, high=MAX_LAYERS
    )
    grid_layers: int = option(
        0, "self-attention layers over the feature grid before the decoder", low=0, high=MAX_LAYERS
    )
    annotation_dim: int = option(512, "annotation dimension D", low=1, high=MAX_SIZE)
    embedding_dim: int = option(512, "word embedding dimension E", low=1, high=MAX_SIZE)
    hidden_dim: int = option(512, "hidden dimension H of the decoder", low=1, high=MAX_SIZE)
    cell: str = option("lstm", "recurrent cell of the decoder", choices=CELLS)
    gate: str = option(
        "scalar", "gate beta on the context: one scalar, one value per unit, or none", choices=GATES
    )
    phrases: int = option(0, low=0, high=MAX_SIZE)  # P, of the phrase head training.phrases adds; 0: none
    phrase_dim: int = option(512, low=1, high=MAX_SIZE)  # hidden dimension of the phrase head
    evidence: int = option(0, low=0, high=MAX_SIZE)  # W, of the detector training.evidence adds; 0: none
    evidence_dim: int = option(256, low=1, high=MAX_SIZE)  # width of its hidden layers
    labels: int = option(0, low=0, high=MAX_SIZE)  # K, of the head training.labels adds; 0: none
    label_dim: int = option(256, low=1, high=MAX_SIZE)  # width of its hidden layers
    endings: int = option(0, low=0, high=MAX_SIZE)  # rows of the table learnt with the vocabulary; 0: none
    confidence: int = option(0, low=0, high=MAX_SIZE)  # features of the probability that a caption is right
    object_names: int = option(0, low=0, high=MAX_SIZE)  # rows of its table of the names of objects
    dropout: float = option(0.4, "dropout on the word embedding and the deep output", low=0, below=1)

    def as_record(self) -> dict[str, Any]:
        """The configuration as plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
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
            config = cls(**record | {name: tuple(map(float, record[name])) for name in ("mean", "std")})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"The model configuration is incomplete or malformed: {error}.") from None
        config._check()
        return config

    def _check(self) -> None:
        """Reject values that no network can have, so that the message names what is damaged."""
        check_options(self, subject="The model configuration has {} =", error=CheckpointError)
        if not re.fullmatch("[a-z]{2,3}", self.language):
            raise CheckpointError(
                f"The model configuration has language = {self.language!r}; "
                "it must be an ISO 639 code such as en or zh."
            )
        if self.grid_layers and (self.annotation_dim % self.attention_heads or self.annotation_dim % 4):
            raise CheckpointError(
                f"Grid layers need an annotation_dim ({self.annotation_dim}) that is a multiple of 4 and of "
                f"attention_heads ({self.attention_heads})."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise CheckpointError(
                "The model configuration needs three means and three positive standard deviations."
            )
