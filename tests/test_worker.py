"""The queue before the captioner, and whether the process says truly that it gets on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytest
from PIL import Image
from support.fake_captioner import FakeCaptioner, picture

from model import Caption, DecodingOptions, ImageLimits, UnsupportedImageError
from service import worker as module
from service.errors import BusyError
from service.worker import Inference


def inference(captioner: Any = None, queue: int = 2) -> Inference:
    return Inference(captioner or FakeCaptioner(), ImageLimits(), queue)


def in_time(condition: Callable[[], bool]) -> bool:
    """Whether ``condition`` comes true before anybody would lose patience."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_full_queue_raises_busy_error() -> None:
    service = inference(queue=2)
    with ExitStack() as first:
        first.enter_context(service.place())
        with service.place(), service.place():
            with pytest.raises(BusyError, match="waiting") as refused:
                service.refuse_if_full()
            assert refused.value.retry_after >= 1
            with pytest.raises(BusyError), service.place():
                pass
            first.close()
            service.refuse_if_full()
    service.refuse_if_full()


def test_failed_request_frees_its_slot() -> None:
    service = inference(queue=0)
    for _ in range(3):
        with pytest.raises(UnsupportedImageError), service.place(), service.turn(nullcontext()):
            service.caption(b"no picture", DecodingOptions())
    with service.place(), service.turn(nullcontext()):
        _, [caption] = service.caption(picture("blue"), DecodingOptions())
    assert caption.text == "a blue wide picture"


def test_inferences_do_not_overlap() -> None:
    inside, most = [0], [0]

    class CountingCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.005)
            inside[0] -= 1
            return super().caption(*args, **kwargs)

    service = inference(CountingCaptioner(), queue=8)

    def ask() -> None:
        with service.place(), service.turn(nullcontext()):
            service.caption(picture(), DecodingOptions())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_requests_are_served_in_order() -> None:
    service = inference(queue=8)
    order: list[str] = []

    def ask(name: str, times: int) -> None:
        for _ in range(times):
            with service.turn(nullcontext()):
                order.append(name)
                time.sleep(0.01)

    with service.turn(nullcontext()):
        threads = [threading.Thread(target=ask, args=("batch", 8))]
        threads += [threading.Thread(target=ask, args=(name, 1)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
            assert in_time(lambda: len(service._slot._line) == len([t for t in threads if t.is_alive()]))
    for thread in threads:
        thread.join()
    assert order[:4] == ["batch", "one", "two", "batch"]


def test_failed_wait_frees_the_slot() -> None:
    class Broken(AbstractContextManager[None]):
        def __exit__(self, *error: object) -> None:
            raise RuntimeError("broken")

    service = inference()
    with pytest.raises(RuntimeError), service.turn(Broken()):
        pass
    with service.turn(nullcontext()):
        pass


def test_readiness_check_triggers_first_caption() -> None:
    service = inference()
    assert "warms up" in str(service.why_not_ready())
    assert in_time(lambda: service.why_not_ready() is None)


def test_forked_process_starts_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    service = inference()
    assert in_time(lambda: service.why_not_ready() is None)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert service.why_not_ready() is not None


def test_unready_after_failure_until_success() -> None:
    class MoodyCaptioner(FakeCaptioner):
        is_broken = False

        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            if self.is_broken:
                raise RuntimeError("broken")
            return super().caption(*args, **kwargs)

    captioner = MoodyCaptioner()
    service = inference(captioner)
    assert in_time(lambda: service.why_not_ready() is None)
    captioner.is_broken = True
    with pytest.raises(RuntimeError), service.turn(nullcontext()):
        service.caption(picture(), DecodingOptions())
    assert "failed" in str(service.why_not_ready())
    captioner.is_broken = False
    assert in_time(lambda: service.why_not_ready() is None)


def test_bad_image_does_not_change_readiness() -> None:
    service = inference()
    assert in_time(lambda: service.why_not_ready() is None)
    with pytest.raises(UnsupportedImageError), service.turn(nullcontext()):
        service.caption(b"no picture", DecodingOptions())
    assert service.why_not_ready() is None


def test_stuck_inference_makes_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    service = inference()
    assert in_time(lambda: service.why_not_ready() is None)
    with service.turn(nullcontext()):
        assert service.why_not_ready() is None
        monkeypatch.setattr(module, "STUCK_SECONDS", 0.0)
        assert "does not get on" in str(service.why_not_ready())
    assert service.why_not_ready() is None


def test_readiness_check_retries_idle_captioner(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class WatchedCaptioner(FakeCaptioner):
        def caption(self, images: Any, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            seen.extend(image.size for image in images)
            assert isinstance(images[0], Image.Image)
            return super().caption(images, *args, **kwargs)

    service = inference(WatchedCaptioner())
    assert in_time(lambda: service.why_not_ready() is None)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    assert in_time(lambda: service.why_not_ready() is None and len(seen) >= 2)


def test_unready_while_stopping() -> None:
    service = inference()
    assert in_time(lambda: service.why_not_ready() is None)
    service.is_draining = True
    assert "stopping" in str(service.why_not_ready())
