"""The captioner as a library. Imports neither service nor training, and nothing of the web.

captioner = Captioner.load("checkpoints/default")
[[caption]] = captioner.caption([open_image(Path("bird.jpg").read_bytes()).image])
"""

from model import command as command

# isort: split
from model.caption import Caption, Grid, Label, Word
from model.captioner import Captioner, EncodedImages
from model.checkpoint import CheckpointInfo
from model.config import MAX_TOKENS, ModelConfig
from model.decoding.options import MAX_BEAM_SIZE, DecodingOptions
from model.drawing.contact_sheet import animated_gif, contact_sheet
from model.drawing.overlay import data_url, draw_overlay, encode_png, word_overlay, word_overlays
from model.errors import (
    CaptioningError,
    CheckpointError,
    EmptyImageError,
    ImageError,
    ImageLimitError,
    NonFiniteError,
    OptionsError,
    OutputFolderError,
    UndecodableImageError,
    UnsupportedImageError,
)
from model.preprocess import ImageLimits, Photo, open_image

__all__ = [
    "Caption",
    "Captioner",
    "CaptioningError",
    "CheckpointError",
    "CheckpointInfo",
    "DecodingOptions",
    "EmptyImageError",
    "EncodedImages",
    "Grid",
    "ImageError",
    "ImageLimitError",
    "ImageLimits",
    "Label",
    "MAX_BEAM_SIZE",
    "MAX_TOKENS",
    "ModelConfig",
    "NonFiniteError",
    "OptionsError",
    "OutputFolderError",
    "Photo",
    "UndecodableImageError",
    "UnsupportedImageError",
    "Word",
    "animated_gif",
    "contact_sheet",
    "data_url",
    "draw_overlay",
    "encode_png",
    "open_image",
    "word_overlay",
    "word_overlays",
]
