"""What stops training, evaluation or a comparison; every message says what would be right."""

from model import CaptioningError


class DataError(CaptioningError):
    """Captions or photos that cannot be trained on."""


class TrainingError(CaptioningError):
    """A run that cannot go on."""


class DivergedError(TrainingError):
    """A run whose numbers left every bound: with these options it always will."""


class ProcessError(CaptioningError):
    """A run of several processes that lost one of them."""


class JavaError(Exception):
    """Why a score is not there: a sentence that also says what would help."""
