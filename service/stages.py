"""How long the stages of answering a request take: queue, decode, encode, text, draw. Of HTTP alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import g


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the seconds of what runs inside to ``g.stages``; a batch goes through a stage several times."""
    start = time.perf_counter()
    try:
        yield
    finally:
        g.stages[name] = g.stages.get(name, 0.0) + time.perf_counter() - start


def server_timing() -> str:
    """The stages of this request as a Server-Timing header, in milliseconds."""
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in g.stages.items())
