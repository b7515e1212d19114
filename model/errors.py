"""Errors that a user, a file or a client can cause. Independent of HTTP and exit codes.

Every message is one sentence: what is wrong; what would be right. Broken invariants of the program itself are
assertions.
"""


class CaptioningError(Exception):
    """The base class; messages may be shown to the user."""


class ImageError(CaptioningError):
    """An image that cannot be captioned."""


class EmptyImageError(ImageError):
    """A file of zero bytes."""


class UnsupportedImageError(ImageError):
    """Data that is not an image of an accepted type, as detected from its content."""


class UndecodableImageError(ImageError):
    """A corrupt image of an accepted type."""


class ImageLimitError(ImageError):
    """An image of an accepted type with too many or too few pixels."""


class OptionsError(CaptioningError):
    """A decoding or drawing option outside its range."""


class CheckpointError(CaptioningError):
    """A checkpoint folder that is missing, damaged or of another program."""


class NonFiniteError(CaptioningError):
    """The network's output is NaN or infinite, so there is nothing to decode."""


class OutputFolderError(CaptioningError):
    """An output folder that another process is writing to, or that cannot be written."""
