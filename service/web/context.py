"""A request on its way: whether it is one for captions, since when, and how long its stages take.

The stages are queue, decode, encode, text and draw.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import g, request


def arrive() -> None:
    """Begin to keep the time of a request."""
    g.arrived, g.stages = time.perf_counter(), {}


def seconds_since_arrival() -> float:
    """Since the head of the request was read."""
    passed: float = time.perf_counter() - g.arrived
    return passed


def asks_for_captions() -> bool:
    """Whether the request is one for captions, whatever it looks like inside."""
    return request.method == "POST" and request.url_rule is not None


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
