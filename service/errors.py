"""Errors of the service and of its commands; every message says what would be right."""

from model import CaptioningError


class ConfigError(CaptioningError):
    """Invalid settings; the message has one line for each."""


class BusyError(CaptioningError):
    """The queue is full; retrying makes sense after ``retry_after`` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The queue is full; retry after {retry_after} s.")
        self.retry_after = retry_after


class OutputError(CaptioningError):
    """An output folder with content of another kind, or that can no longer be written."""


class InputError(CaptioningError):
    """An input of a batch run without an image file."""
