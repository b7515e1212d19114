"""What stops the service or a batch run; every message says what would be right."""

from model import CaptioningError


class ConfigError(Exception):
    """Settings of the service that cannot be; the message has one sentence a line for each mistake."""


class BusyError(CaptioningError):
    """The queue is full; ``retry_after`` is in how many seconds it is worth asking again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many photos are waiting; try again in {retry_after} s.")
        self.retry_after = retry_after


class OutputError(CaptioningError):
    """An output folder with content of another kind, or that can no longer be written."""


class InputError(CaptioningError):
    """An input of a batch run without an image file."""
