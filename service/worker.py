"""The captioner of one process: a bounded queue, one inference at a time, and readiness.

This file knows nothing of HTTP.
"""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Thread

from PIL import Image

from model import (
    Caption,
    Captioner,
    DecodingOptions,
    ImageError,
    ImageLimits,
    NonFiniteError,
    OptionsError,
    Photo,
    open_image,
)
from service.errors import BusyError

logger = logging.getLogger(__name__)

STUCK_SECONDS = 60.0  # no accepted image keeps a healthy process busy for this long
FRESH_SECONDS = 60.0  # an idle captioner is tested again by the first readiness check after this time
_DECAY = 0.9  # of the moving average of the seconds that a hold lasts


class Timings(dict[str, float]):
    """The seconds spent in each stage of a request, summed over the photos of a batch."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the duration of the block to ``stage``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = self.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Captioned:
    """An uploaded photo with its captions, best first."""

    photo: Photo
    captions: list[Caption]


class FairLock:
    """A lock that is acquired in first-in, first-out order.

    The locks of ``threading`` are not: a thread that releases one and acquires it again overtakes those
    waiting, so a batch of sixteen photos would delay every other request until its end.
    """

    def __init__(self) -> None:
        self._queue: deque[Lock] = deque()  # a lock per thread; the holder's is the first
        self._guard = Lock()

    def acquire(self) -> None:
        """Block until every thread that came before has released the lock."""
        own = Lock()
        own.acquire()
        with self._guard:
            self._queue.append(own)
            if self._queue[0] is own:
                return
        own.acquire()

    def release(self) -> None:
        """Hand the lock to the thread that has waited longest."""
        with self._guard:
            self._queue.popleft()
            if self._queue:
                self._queue[0].release()


class Worker:
    """A captioner that serves one request at a time, and the bounded queue in front of it."""

    def __init__(self, captioner: Captioner, limits: ImageLimits, queue: int) -> None:
        """``queue`` requests may wait in addition to the one being served."""
        self.captioner = captioner
        self.limits = limits
        self.is_draining = False  # set when the process is asked to stop
        self._slots = 1 + queue
        self._used_slots = 0
        self._guard = Lock()
        # Held from decoding to drawing. One torch thread fills the core a process has, so a second photo at a
        # time would gain nothing and double the memory that large ones take.
        self._lock = FairLock()
        self._held_since: float | None = None  # seconds of the monotonic clock
        self._mean_seconds = 0.0  # moving average of the duration of a hold
        self._warming_up = Lock()
        # By process, as a forked child starts unready: seconds of the monotonic clock.
        self._last_success: dict[int, float] = {}
        self._has_failed = False

    def check_queue(self) -> None:
        """Reject early a request for which there is no slot; a slot is not reserved.

        Raises:
            BusyError: the queue is full.
        """
        if self._used_slots >= self._slots:
            raise BusyError(max(1, math.ceil(self._mean_seconds)))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Occupy a slot of the queue, from waiting to the end of the work.

        Raises:
            BusyError: the queue is full.
        """
        with self._guard:
            self.check_queue()
            self._used_slots += 1
        try:
            yield
        finally:
            with self._guard:
                self._used_slots -= 1

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the captioner and hold it exclusively; occupy a ``slot`` first."""
        self._lock.acquire()
        started = self._held_since = time.monotonic()
        try:
            yield
        finally:
            self._held_since = None
            elapsed = time.monotonic() - started
            self._mean_seconds = _DECAY * (self._mean_seconds or elapsed) + (1 - _DECAY) * elapsed
            self._lock.release()

    def caption(self, data: bytes, options: DecodingOptions, timings: Timings) -> Captioned:
        """Decode and caption an uploaded photo; ``hold`` the captioner meanwhile.

        Raises:
            ImageError: the bytes are not an acceptable image.
        """
        with timings.measure("decode"):
            photo = open_image(data, self.limits)
        return Captioned(photo, self._infer(photo.image, options, timings))

    def _infer(self, image: Image.Image, options: DecodingOptions, timings: Timings) -> list[Caption]:
        try:
            with timings.measure("encode"):
                encoded = self.captioner.encode([image])
            with timings.measure("text"):
                [captions] = self.captioner.decode(encoded, options)
            if not captions:
                raise NonFiniteError("The network's output has no finite hypothesis.")
        except (ImageError, OptionsError):  # the request is at fault
            raise
        except Exception as error:
            self._has_failed = True
            if isinstance(error, NonFiniteError):  # a problem to the client, but no less a failure of ours
                logger.error("Inference failed: %s", error)
            raise
        self._has_failed = False
        self._last_success[os.getpid()] = time.monotonic()
        return captions

    def unready_reason(self) -> str | None:
        """Why this process cannot caption now, as a sentence; None if it can. May start a warm-up."""
        if self.is_draining:
            return "The service is shutting down."
        held_since = self._held_since
        if held_since is not None and time.monotonic() - held_since > STUCK_SECONDS:
            return f"Inference has been stuck for {STUCK_SECONDS:.0f} s."
        last_success = self._last_success.get(os.getpid())
        if self._has_failed or last_success is None:
            self.start_warm_up()
            return "Inference failed; retrying." if self._has_failed else "The captioner is warming up."
        if held_since is None and time.monotonic() - last_success > FRESH_SECONDS:
            self.start_warm_up()
        return None

    def start_warm_up(self) -> None:
        """Caption a grey image in the background, unless that is in progress."""
        if self._warming_up.acquire(blocking=False):
            Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        try:
            with self.hold():
                self._infer(Image.new("RGB", (224, 224), "grey"), DecodingOptions(), Timings())
        except Exception:
            logger.exception("Captioning a grey image failed; the service is not ready.")
        finally:
            self._warming_up.release()
