"""Everything a user, a file or a client can cause. Knows nothing of HTTP or exit codes.

    CaptioningError
    ├── ImageError
    │   ├── EmptyImageError         no bytes at all
    │   ├── UnsupportedImageError   not one of the accepted picture types, judged by content
    │   ├── UndecodableImageError   an accepted type, but broken
    │   └── ImageLimitError         an accepted type, but too large or too small
    ├── OptionsError                a decoding or drawing option outside its range
    ├── CheckpointError             a checkpoint folder that is missing, damaged or foreign
    ├── NonFiniteError              a network whose output is not finite
    └── OutputFolderError           an output folder that is in use or cannot be written

Every message is one sentence that says what is wrong and what would be right. Broken invariants of
our own code are not here: those are assertions.
"""


class CaptioningError(Exception):
    """Something outside the program is wrong; the message may be shown to whoever caused it."""


class ImageError(CaptioningError):
    """A picture that cannot be captioned."""


class EmptyImageError(ImageError):
    """A picture of zero bytes."""


class UnsupportedImageError(ImageError):
    """Bytes that are not a picture of an accepted type."""


class UndecodableImageError(ImageError):
    """A picture of an accepted type whose data is damaged."""


class ImageLimitError(ImageError):
    """A picture with too many pixels, or with too few."""


class OptionsError(CaptioningError):
    """An option outside its documented range."""


class CheckpointError(CaptioningError):
    """A checkpoint folder that cannot be used."""


class NonFiniteError(CaptioningError):
    """The network's output is NaN or infinite, so there is nothing to decode."""


class OutputFolderError(CaptioningError):
    """An output folder that another process is writing to, or that cannot be written."""
