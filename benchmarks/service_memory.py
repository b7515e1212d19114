"""Measures whether the memory of the service grows.

    python -m benchmarks.service_memory

sends a warm-up of 2,000 requests and then 2,000 more: captions with and without overlays, several photos
at once, large photos, corrupt ones, text, invalid options, and pages. Every 200 requests it reads the memory
of the processes (PSS, which counts shared memory once). The warm-up is long because every thread keeps some
memory of the largest photo it has decoded, once.

Guarantees: memory grows by at most 5 MB per 1,000 requests, no process exits, no response is a 5xx.
"""

import statistics
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from random import Random

import psutil

from benchmarks.harness.client import Response, Upload, get, post_with_retries
from benchmarks.harness.photos import examples, large_photo
from benchmarks.harness.report import Report, benchmark_parser
from benchmarks.harness.server import Service, serving
from model.command import run_command

WORKERS = 2
CLIENTS = 4
INTERVAL = 200  # requests between two readings of the memory
PAGES = ("/", "/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json", "/nowhere")


def request_kinds() -> dict[str, tuple[int, list[Upload]]]:
    """The share of each kind of request, per cent, and its uploads; the rest of the requests are pages."""
    photos = examples()
    corrupt = [photo[: len(photo) // 3] for photo in photos]
    return {
        "words": (30, [Upload.of(photo) for photo in photos]),
        "none": (20, [Upload.of(photo, overlays="none") for photo in photos]),
        "sheet": (8, [Upload.of(photo, overlays="sheet") for photo in photos]),
        "overlay": (6, [Upload.of(photo, path="/v1/overlays") for photo in photos]),
        "several": (4, [Upload.of(*photos[:2], corrupt[2], path="/v1/captions:batch")]),
        "large": (2, [Upload.of(large_photo(), overlays="none")]),
        "corrupt": (10, [Upload.of(photo) for photo in corrupt]),
        "text": (5, [Upload.of(b"not an image")]),
        "option": (5, [Upload.of(photos[0], beam_size="99")]),
    }


def plan(count: int, seed: int) -> list[Upload | str]:
    """Uploads and paths of pages, in random order."""
    rng, kinds = Random(seed), request_kinds()
    shares = [share for share, _ in kinds.values()]
    chosen = rng.choices([*kinds, "page"], [*shares, 100 - sum(shares)], k=count)
    return [rng.choice(PAGES) if name == "page" else rng.choice(kinds[name][1]) for name in chosen]


def memory(service: Service) -> dict[str, float]:
    """Megabytes of all workers together."""
    workers = [psutil.Process(worker).memory_full_info() for worker in service.workers()]
    return {
        "Rss": round(sum(each.rss for each in workers) / 1e6, 2),
        "Pss": round(sum(each.pss for each in workers) / 1e6, 2),
    }


def measure(report: Report, service: Service, warm_up: int, count: int) -> None:
    """Warm up, then read the memory at every interval."""

    def send(request: Upload | str) -> Response:
        port = service.port
        return get(port, request) if isinstance(request, str) else post_with_retries(port, request)

    statuses: Counter[int] = Counter()
    before = set(service.workers())
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, plan(warm_up, seed=0)))
        readings = [memory(service)]
        requests = plan(count, seed=1)
        for start in range(0, count, INTERVAL):
            responses = pool.map(send, requests[start : start + INTERVAL])
            statuses.update(response.status for response in responses)
            readings.append(memory(service))
    thousands = [min(number * INTERVAL, count) / 1000 for number in range(len(readings))]
    slopes = {
        name: statistics.linear_regression(thousands, [each[name] for each in readings]).slope
        for name in ("Rss", "Pss")
    }
    report.add("statuses", {str(status): statuses[status] for status in sorted(statuses)})
    report.add("megabytes", readings)
    report.add("megabytes_per_1000_requests", {name: round(slope, 2) for name, slope in slopes.items()})
    report.guarantee("growth (PSS) per 1,000 requests, MB", slopes["Pss"], at_most=5)
    report.guarantee("processes that exited", len(before - set(service.workers())), at_most=0)
    failed = sum(number for status, number in statuses.items() if not 200 <= status < 500)
    report.guarantee("5xx responses and broken connections", failed, at_most=0)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("service_memory", __doc__)
    parser.add_argument("--warm-up", type=int, default=2000, help="requests (default: 2000)")
    parser.add_argument("--requests", type=int, default=2000, help="measured requests (default: 2000)")
    args = parser.parse_args()
    report = Report(workers=WORKERS, clients=CLIENTS, warm_up=args.warm_up, requests=args.requests)
    # gunicorn_config.max_requests replaces old workers, which would hide a leak.
    with serving({"workers": WORKERS}, options=("--max-requests", "0")) as service:
        measure(report, service, args.warm_up, args.requests)
    return report.finish()


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.service_memory", main))
