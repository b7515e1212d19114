"""How every command ends: one line on standard error, and an exit status.

``model`` imports this module first, because it takes effect before torch is imported, which takes seconds.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

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
        # From here on, Ctrl-C is an exception, so that the body can clean up.
        if signal.getsignal(signal.SIGINT) is _exit:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return body() or SUCCESS
    except KeyboardInterrupt:
        print(f"\n{prog}: {interrupted()}", file=sys.stderr)  # the terminal shows ^C on a line of its own
        return INTERRUPTED
    except (CaptioningError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILURE


def _main_module() -> str:
    """The module that ``python -m`` runs; empty if there is none."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else ""


def _exit(number: int, frame: object) -> NoReturn:
    """End a command that is still being imported, without an exception, which imports may swallow."""
    print(f"\n{_main_module().removeprefix('training.')}: stopped", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


# Not where the model is used as a library, nor where SIGINT is ignored.
if (
    _main_module().startswith(("training.", "service.", "benchmarks."))
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _exit)
