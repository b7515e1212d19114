"""The captioner of one process: one caption at a time, and whether it has been seen to work.

This file knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import os
from threading import BoundedSemaphore, Lock, Thread

from PIL import Image

from model import Caption, Captioner, DecodingOptions, ImageLimits, Photograph, open_image

logger = logging.getLogger(__name__)


class Inference:
    """A captioner with the slot that its work is done in."""

    def __init__(self, captioner: Captioner, limits: ImageLimits) -> None:
        self.captioner = captioner
        self.limits = limits
        # Held from decoding to rendering. One torch thread fills the core a process has, so a second
        # photograph at a time would gain nothing and double the memory that large ones take.
        self.slot = BoundedSemaphore(1)
        self._warming_up = Lock()
        self._ready_process: int | None = None

    @property
    def is_ready(self) -> bool:
        """Whether this very process has captioned: a forked child starts unready."""
        return self._ready_process == os.getpid()

    def caption(self, data: bytes, options: DecodingOptions) -> tuple[Photograph, list[Caption]]:
        """The photograph in ``data`` and its captions, best first. Call it holding ``slot``.

        Raises:
            ImageError: the bytes are no acceptable photograph.
        """
        photograph = open_image(data, self.limits)
        [captions] = self.captioner.caption([photograph.image], options)
        return photograph, captions

    def start_warm_up(self) -> None:
        """Caption a grey picture in the background, unless that is going on already."""
        if self._warming_up.acquire(blocking=False):
            Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        try:
            with self.slot:
                self.captioner.caption([Image.new("RGB", (224, 224), "grey")], DecodingOptions())
            self._ready_process = os.getpid()
        except Exception:
            logger.exception("The warm-up caption failed; the service is not ready.")
        finally:
            self._warming_up.release()
