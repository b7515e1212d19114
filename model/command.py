"""How every command ends: one line on standard error, and an exit status."""

import sys
from collections.abc import Callable

from model.errors import CaptioningError

SUCCESS, FAILURE, INTERRUPTED = 0, 2, 130  # 130 = 128 + SIGINT, as shells report it


def run_command(
    prog: str, body: Callable[[], int | None], *, interrupted: Callable[[], str] = lambda: "stopped"
) -> int:
    """Run the body of a command and return its exit status.

    Args:
        prog: name of the command, which begins every message.
        body: does the work; returns an exit status, or None for success.
        interrupted: returns what to say after Ctrl-C, such as how to resume.

    Returns:
        What ``body`` returned, 2 after a ``CaptioningError`` or an ``OSError``, or 130 after Ctrl-C.
    """
    try:
        return body() or SUCCESS
    except KeyboardInterrupt:
        print(f"\n{prog}: {interrupted()}", file=sys.stderr)  # the terminal shows ^C on a line of its own
        return INTERRUPTED
    except (CaptioningError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILURE
