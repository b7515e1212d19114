"""Errors of training, evaluation and comparison; every message says what would be right."""

from model import CaptioningError


class DataError(CaptioningError):
    """Captions, photos or other data files that cannot be used."""


class TrainingError(CaptioningError):
    """A run that cannot be started, continued or resumed."""


class DivergedError(TrainingError):
    """A run whose loss or gradient is not finite."""


class ProcessError(CaptioningError):
    """A distributed run that lost a process."""


class JavaError(CaptioningError):
    """A score that cannot be computed because Java or a file it needs is missing."""
