"""Load on the service: concurrent clients, the latency of ``/healthz`` meanwhile, and the figures of both.

Clients are threads of this process, light beside captioning; ``Load.cpu_seconds`` says how light.
"""

import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.harness.client import Response, Upload, post
from benchmarks.harness.health_probe import probing_health

WARM_UP = 1.5  # seconds before measuring


@dataclass
class Load:
    """The responses to concurrent clients."""

    responses: list[Response] = field(default_factory=list)
    started: float = 0.0  # seconds of the monotonic clock
    ended: float = 0.0
    cpu_seconds: float = 0.0  # of the clients
    health: list[float] = field(default_factory=list)  # seconds of each response of /healthz

    def statuses(self) -> dict[str, int]:
        """The number of responses with each status code; "0" is a broken connection."""
        counts = Counter(response.status for response in self.responses)
        return {str(status): counts[status] for status in sorted(counts)}

    def rate(self) -> float:
        """Captioned requests per second between start and end."""
        done = (each.started + each.seconds for each in self.responses if each.status == 200)
        return sum(self.started <= moment <= self.ended for moment in done) / (self.ended - self.started)

    def latencies_ms(self, status: int = 200) -> list[float]:
        """The latency of each response with this status code."""
        return [1000 * response.seconds for response in self.responses if response.status == status]


@contextmanager
def load(port: int, uploads: Sequence[Upload], clients: int, *, backs_off: bool = True) -> Iterator[Load]:
    """Clients that send requests until the block ends, which waits for the last responses.

    Args:
        port: of the service.
        uploads: each client sends all of them in turns, starting with another one.
        clients: concurrent clients.
        backs_off: whether clients wait as long as ``Retry-After`` says, or retry immediately.
    """
    result, stop = Load(), threading.Event()

    def send(first: int) -> None:
        number = first
        while not stop.is_set():
            response = post(port, uploads[number % len(uploads)])
            result.responses.append(response._replace(body=b""))  # thousands of them would fill the memory
            number += 1
            if backs_off and response.retry_after:
                stop.wait(response.retry_after)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    cpu, result.started = time.process_time(), time.monotonic()
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        result.ended, result.cpu_seconds = time.monotonic(), time.process_time() - cpu
        stop.set()
        for thread in threads:
            thread.join()


def measure_load(
    port: int, uploads: Sequence[Upload], clients: int, seconds: float, *, backs_off: bool = True
) -> Load:
    """Load for ``seconds`` after a warm-up, with the latency of ``/healthz`` under it."""
    with load(port, uploads, clients, backs_off=backs_off) as result:
        time.sleep(WARM_UP)
        result.started = time.monotonic()
        with probing_health(port) as result.health:
            time.sleep(seconds)
    return result


def summary(loads: Sequence[Load]) -> dict[str, Any]:
    """Throughput, the median over rounds of the same load, and latencies."""
    latencies = [latency for each in loads for latency in each.latencies_ms()]
    health = [seconds for each in loads for seconds in each.health]
    return {
        "captions_per_second": round(statistics.median(each.rate() for each in loads), 2),
        **{f"p{percent}_ms": round(percentile(latencies, percent), 1) for percent in (50, 95, 99)},
        "health_p99_ms": round(1000 * percentile(health, 99), 1),
        "captioned": len(latencies),
        "not_captioned": sum(len(each.responses) for each in loads) - len(latencies),
    }


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` per cent do not exceed; NaN if there are none."""
    return float(np.percentile(list(values) or [math.nan], percent, method="inverted_cdf"))
