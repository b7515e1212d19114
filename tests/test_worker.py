"""The worker: its queue, exclusive use of the captioner, and readiness."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from support.fake_captioner import FakeCaptioner, image_file

from model import Caption, DecodingOptions, ImageLimits, UnsupportedImageError
from service import worker as module
from service.errors import BusyError
from service.worker import Captioned, Timings, Worker


def make_worker(captioner: Any = None, queue: int = 2) -> Worker:
    return Worker(captioner or FakeCaptioner(), ImageLimits(), queue)


def caption(worker: Worker, data: bytes) -> Captioned:
    with worker.slot(), worker.hold():
        return worker.caption(data, DecodingOptions(), Timings())


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_ready(worker: Worker) -> bool:
    return worker.unready_reason() is None


@pytest.fixture
def ready_worker() -> Worker:
    worker = make_worker()
    assert eventually(lambda: is_ready(worker))
    return worker


class BrokenCaptioner(FakeCaptioner):
    error: Exception | None = None

    def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        if self.error:
            raise self.error
        return super().caption(*args, **kwargs)


# The queue


def test_full_queue_is_busy_until_a_slot_is_released() -> None:
    worker = make_worker(queue=2)
    with ExitStack() as first:
        first.enter_context(worker.slot())
        with worker.slot(), worker.slot():
            with pytest.raises(BusyError, match="queue is full") as error:
                worker.check_queue()
            assert error.value.retry_after >= 1
            with pytest.raises(BusyError), worker.slot():
                pass
            first.close()
            worker.check_queue()
    worker.check_queue()


def test_failed_request_releases_slot_and_captioner() -> None:
    worker = make_worker(queue=0)
    for _ in range(3):
        with pytest.raises(UnsupportedImageError):
            caption(worker, b"not an image")
    assert caption(worker, image_file("blue")).captions[0].text == "a blue wide picture"


def test_one_inference_at_a_time() -> None:
    running, most_running = [0], [0]

    class CountingCaptioner(FakeCaptioner):
        def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            running[0] += 1
            most_running[0] = max(most_running[0], running[0])
            time.sleep(0.005)
            running[0] -= 1
            return super().caption(*args, **kwargs)

    worker = make_worker(CountingCaptioner(), queue=8)
    threads = [threading.Thread(target=caption, args=(worker, image_file())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_running == [1]


def test_captioner_is_held_in_fifo_order() -> None:
    worker = make_worker(queue=8)
    order: list[str] = []

    def hold(name: str, times: int) -> None:
        for _ in range(times):
            with worker.hold():
                order.append(name)
                time.sleep(0.01)

    with worker.hold():
        threads = [threading.Thread(target=hold, args=("batch", 8))]
        threads += [threading.Thread(target=hold, args=(name, 1)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
            assert eventually(
                lambda: len(worker._lock._queue) == 1 + len([t for t in threads if t.is_alive()])
            )
    for thread in threads:
        thread.join()
    assert order[:4] == ["batch", "one", "two", "batch"]


# Readiness


def test_readiness_check_warms_up() -> None:
    worker = make_worker()
    assert "warming up" in str(worker.unready_reason())
    assert eventually(lambda: is_ready(worker))


def test_forked_child_starts_unready(ready_worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert not is_ready(ready_worker)


def test_failure_makes_unready_until_success() -> None:
    captioner = BrokenCaptioner()
    worker = make_worker(captioner)
    assert eventually(lambda: is_ready(worker))
    captioner.error = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        caption(worker, image_file())
    assert worker.unready_reason() == "Inference failed; retrying."
    captioner.error = None
    assert eventually(lambda: is_ready(worker))


def test_invalid_image_does_not_affect_readiness(ready_worker: Worker) -> None:
    with pytest.raises(UnsupportedImageError):
        caption(ready_worker, b"not an image")
    assert is_ready(ready_worker)


def test_stuck_inference_makes_unready(ready_worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    with ready_worker.hold():
        assert is_ready(ready_worker)
        monkeypatch.setattr(module, "STUCK_SECONDS", 0.0)
        assert "stuck" in str(ready_worker.unready_reason())
    assert is_ready(ready_worker)


def test_idle_captioner_is_tested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    class RecordingCaptioner(FakeCaptioner):
        def caption(self, images: Any, *args: Any, **kwargs: Any) -> list[list[Caption]]:
            sizes.extend(image.size for image in images)
            return super().caption(images, *args, **kwargs)

    worker = make_worker(RecordingCaptioner())
    assert eventually(lambda: is_ready(worker))
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    assert eventually(lambda: is_ready(worker) and len(sizes) >= 2)


def test_draining_makes_unready(ready_worker: Worker) -> None:
    ready_worker.is_draining = True
    assert "shutting down" in str(ready_worker.unready_reason())
