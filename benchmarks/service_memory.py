"""Does the service keep what it should forget? Requests of every sort, and the memory of its processes.

    python -m benchmarks.service_memory

sends 2,000 requests after 2,000 that warm up: captions with and without pictures, several photos at
once, large ones, damaged ones, text instead of a photo, wrong options, and the pages. After every 200
it reads the memory of the processes (PSS: what they share is counted once). The warm-up is as long because
every thread keeps some memory of the largest photo it has had, once.
It promises: the slope is under 5 MB for 1,000 requests, no process ended, and no answer is a 500. It prints
JSON, and ends with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psutil

from benchmarks.harness.client import Answer, Upload, ask_patiently, get
from benchmarks.harness.photos import examples, large
from benchmarks.harness.report import Report
from benchmarks.harness.server import Service, serving

WORKERS = 2
CLIENTS = 4
EVERY = 200  # requests between two readings
PAGES = ("/", "/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json", "/nowhere")


def requests_of_every_sort() -> dict[str, tuple[int, list[Upload]]]:
    """By name: how many of a hundred requests are of this sort, and the uploads to choose from."""
    images = examples()
    damaged = [photo[: len(photo) // 3] for photo in images]
    return {
        "words": (30, [Upload.of(each) for each in images]),
        "none": (20, [Upload.of(each, overlays="none") for each in images]),
        "sheet": (8, [Upload.of(each, overlays="sheet") for each in images]),
        "picture": (6, [Upload.of(each, path="/v1/overlays") for each in images]),
        "several": (4, [Upload.of(*images[:2], damaged[2], path="/v1/captions:batch")]),
        "large": (2, [Upload.of(large(), overlays="none")]),
        "damaged": (10, [Upload.of(each) for each in damaged]),
        "text": (5, [Upload.of(b"no photo")]),
        "option": (5, [Upload.of(images[0], beam_size="99")]),
    }


def plan(count: int, seed: int) -> list[Upload | str]:
    """Uploads and paths to ask for, shuffled; one in ten is a page."""
    rng, sorts = Random(seed), requests_of_every_sort()
    names, shares = list(sorts), [share for share, _ in sorts.values()]
    chosen = rng.choices([*names, "page"], [*shares, 100 - sum(shares)], k=count)
    return [rng.choice(PAGES) if name == "page" else rng.choice(sorts[name][1]) for name in chosen]


def memory(service: Service) -> dict[str, float]:
    """Megabytes of all workers together."""
    of_workers = [psutil.Process(worker).memory_full_info() for worker in service.workers()]
    return {
        "Rss": round(sum(each.rss for each in of_workers) / 1e6, 2),
        "Pss": round(sum(each.pss for each in of_workers) / 1e6, 2),
    }


def endure(report: Report, service: Service, warm_up: int, count: int) -> None:
    """Warm up, then read the memory again and again."""

    def answer_to(request: Upload | str) -> Answer:
        port = service.port
        return get(port, request) if isinstance(request, str) else ask_patiently(port, request)

    statuses: Counter[int] = Counter()
    before = set(service.workers())
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(answer_to, plan(warm_up, seed=0)))
        readings = [memory(service)]
        requests = plan(count, seed=1)
        for start in range(0, count, EVERY):
            answers = pool.map(answer_to, requests[start : start + EVERY])
            statuses.update(answer.status for answer in answers)
            readings.append(memory(service))
    thousands = [min(place * EVERY, count) / 1000 for place in range(len(readings))]
    slopes = {
        name: statistics.linear_regression(thousands, [each[name] for each in readings]).slope
        for name in ("Rss", "Pss")
    }
    report.add("statuses", {str(status): statuses[status] for status in sorted(statuses)})
    report.add("megabytes", readings)
    report.add("megabytes_per_1000_requests", {name: round(slope, 2) for name, slope in slopes.items()})
    report.promise("megabytes (PSS) that 1,000 requests leave behind", slopes["Pss"], at_most=5)
    report.promise("processes that ended: none", len(before - set(service.workers())), at_most=0)
    faults = sum(number for status, number in statuses.items() if not 200 <= status < 500)
    report.promise("answers of 5xx or none: none", faults, at_most=0)


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--warm-up", type=int, default=2000, help="requests, default 2000")
    parser.add_argument("--requests", type=int, default=2000, help="that count, default 2000")
    chosen = parser.parse_args()
    report = Report(workers=WORKERS, clients=CLIENTS, warm_up=chosen.warm_up, requests=chosen.requests)
    # By default gunicorn replaces a worker after some 50,000 requests, which would hide a leak.
    with serving({"workers": WORKERS}, options=("--max-requests", "0")) as service:
        endure(report, service, chosen.warm_up, chosen.requests)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
