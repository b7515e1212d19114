"""The captioner of one process: one photo at a time, a queue that ends, and whether it gets on.

This file knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import Lock, Thread

from PIL import Image

from model import (
    Caption,
    Captioner,
    CaptioningError,
    DecodingOptions,
    ImageLimits,
    Measure,
    Photo,
    open_image,
    unmeasured,
)
from service.errors import BusyError

logger = logging.getLogger(__name__)

STUCK_SECONDS = 60.0  # no photo that is accepted takes a working process as long
FRESH_SECONDS = 60.0  # after which a silent captioner is tried out when somebody asks whether it is ready
_MEMORY = 0.9  # of the mean time a turn takes, in the moving average


class FairLock:
    """A lock that is handed to those who wait in the order they came.

    The locks of ``threading`` are not: who releases one and asks again gets it before those who waited, and
    sixteen photos in one request would go before the one of everybody else.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._line: deque[Lock] = deque()  # of those who wait, each on a lock of its own
        self._guard = Lock()

    def acquire(self) -> None:
        """Wait until it is this thread's turn."""
        mine = Lock()
        with self._guard:
            if not self._is_taken:
                self._is_taken = True
                return
            mine.acquire()
            self._line.append(mine)
        mine.acquire()

    def release(self) -> None:
        """Hand it to the next."""
        with self._guard:
            if self._line:
                self._line.popleft().release()
            else:
                self._is_taken = False


class Inference:
    """A captioner with the slot that its work is done in and the queue before it."""

    def __init__(self, captioner: Captioner, limits: ImageLimits, queue: int) -> None:
        """``queue`` requests may wait, beyond the one that is worked on."""
        self.captioner = captioner
        self.limits = limits
        self.is_draining = False  # set when the process is asked to stop
        self._places = 1 + queue
        self._taken = 0  # places
        self._count = Lock()
        # Held from decoding to drawing. One torch thread fills the core a process has, so a second
        # photo at a time would gain nothing and double the memory that large ones take.
        self._slot = FairLock()
        self._turn_began: float | None = None  # seconds of the monotonic clock, while the slot is held
        self._turn_seconds = 0.0  # what a turn takes, a moving average
        self._warming_up = Lock()
        # Of the last caption of our own or of a client, in this very process: a forked child starts unready.
        self._succeeded: tuple[int, float] | None = None  # process, seconds of the monotonic clock
        self._has_failed = False

    def refuse_if_full(self) -> None:
        """Refuse early what could not be taken in; nothing is held by those who pass.

        Raises:
            BusyError: there is no place.
        """
        if self._taken >= self._places:
            raise BusyError(self._seconds_to_a_place())

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, and then at work.

        Raises:
            BusyError: there is none.
        """
        with self._count:
            self.refuse_if_full()
            self._taken += 1
        try:
            yield
        finally:
            with self._count:
                self._taken -= 1

    @contextmanager
    def turn(self, waiting: AbstractContextManager[None]) -> Iterator[None]:
        """The slot, as soon as it is free; take a ``place`` first. Inside ``waiting`` is the wait for it."""
        with ExitStack() as held:
            with waiting:
                self._slot.acquire()
                held.callback(self._slot.release)
            began = self._turn_began = time.monotonic()
            try:
                yield
            finally:
                self._turn_began = None
                spent = time.monotonic() - began
                self._turn_seconds = _MEMORY * (self._turn_seconds or spent) + (1 - _MEMORY) * spent

    def caption(
        self, data: bytes, options: DecodingOptions, measure: Measure = unmeasured
    ) -> tuple[Photo, list[Caption]]:
        """The photo in ``data`` and its captions, best first. Call it in your ``turn``.

        Raises:
            ImageError: the bytes are no acceptable photo.
        """
        with measure("decode"):
            photo = open_image(data, self.limits)
        return photo, self._write(photo.image, options, measure)

    def _write(self, image: Image.Image, options: DecodingOptions, measure: Measure) -> list[Caption]:
        try:
            [captions] = self.captioner.caption([image], options, measure)
        except CaptioningError:
            raise
        except Exception:
            self._has_failed = True
            raise
        self._has_failed = False
        self._succeeded = (os.getpid(), time.monotonic())
        return captions

    def why_not_ready(self) -> str | None:
        """What keeps this process from captioning now, in a sentence, or None; asking makes it try."""
        if self.is_draining:
            return "The service is stopping."
        began = self._turn_began
        if began is not None and time.monotonic() - began > STUCK_SECONDS:
            return "The captioner does not get on with a photo."
        succeeded = self._last_success()
        if self._has_failed or succeeded is None:
            self.start_warm_up()
            return "The captioner failed and is tried out." if self._has_failed else "The captioner warms up."
        if began is None and time.monotonic() - succeeded > FRESH_SECONDS:
            self.start_warm_up()
        return None

    def start_warm_up(self) -> None:
        """Caption a grey picture in the background, unless that is going on already."""
        if self._warming_up.acquire(blocking=False):
            Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        try:
            with self.turn(nullcontext()):
                self._write(Image.new("RGB", (224, 224), "grey"), DecodingOptions(), unmeasured)
        except Exception:
            logger.exception("The captioner cannot caption a grey picture; the service is not ready.")
        finally:
            self._warming_up.release()

    def _last_success(self) -> float | None:
        """Seconds of the monotonic clock, or None if this process has not captioned."""
        if self._succeeded is None or self._succeeded[0] != os.getpid():
            return None
        return self._succeeded[1]

    def _seconds_to_a_place(self) -> int:
        return max(1, math.ceil(self._turn_seconds))
