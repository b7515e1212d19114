"""Measures the overhead of HTTP, and of the overlays of a default response.

    python -m benchmarks.service_cost

alternates between the service with 16 clients and as many processes without HTTP that open, caption and
serialize the same photos in a loop; then between the same request with and without an overlay per word.

Guarantees: throughput over HTTP is at least 85% of that of the loop; a default response takes at most
1.3 times as long as one without overlays.
"""

import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from benchmarks.harness.client import Upload, post
from benchmarks.harness.load import WARM_UP, load
from benchmarks.harness.photos import examples
from benchmarks.harness.report import Report, benchmark_parser
from benchmarks.harness.server import ROOT, Service, serving
from model import Captioner, DecodingOptions, open_image
from model.command import run_command
from service.web.responses import caption_response
from service.worker import Captioned

WORKERS = 2
CLIENTS = 16


@cache
def load_captioner() -> Captioner:
    """The shipped captioner, loaded once in a process, on one torch thread."""
    import torch

    torch.set_num_threads(1)
    return Captioner.load(ROOT / "checkpoints" / "default")


def caption_in_loop(seconds: float) -> float:
    """Caption the examples for that long; returns captions per second."""
    captioner, uploads = load_captioner(), examples()
    done, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        photo = open_image(uploads[done % len(uploads)])
        [captions] = captioner.caption([photo.image], DecodingOptions())
        json.dumps(caption_response(Captioned(photo, captions), overlays="none"))
        done += 1
    return done / (time.monotonic() - start)


def loop_rate(pool: ProcessPoolExecutor, seconds: float) -> float:
    """Captions per second of all processes together."""
    return sum(pool.map(caption_in_loop, [seconds] * WORKERS))


def measure_http(report: Report, service: Service, rounds: int, seconds: float) -> None:
    """Alternate between the service and the loop, each after a warm-up."""
    uploads = [Upload.of(photo, overlays="none") for photo in examples()]
    over_http, in_loop, cpu = [], [], []
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the processes of the loop import torch
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        loop_rate(pool, WARM_UP)
        for _ in range(rounds):
            with load(service.port, uploads, CLIENTS) as result:
                time.sleep(WARM_UP)
                result.started = time.monotonic()
                time.sleep(seconds)
            over_http.append(result.rate())
            cpu.append(result.cpu_seconds / len(result.responses))
            in_loop.append(loop_rate(pool, seconds))
    ratio = statistics.median(http / loop for http, loop in zip(over_http, in_loop, strict=True))
    report.add(
        "http",
        {
            "clients": CLIENTS,
            "captions_per_second_over_http": [round(rate, 2) for rate in over_http],
            "captions_per_second_in_loop": [round(rate, 2) for rate in in_loop],
            "ratio": round(ratio, 3),
            "client_cpu_ms_per_request": round(1000 * statistics.median(cpu), 2),
        },
    )
    report.guarantee("throughput over HTTP relative to a loop", ratio, at_least=0.85)


def measure_overlays(report: Report, service: Service, pairs: int) -> None:
    """Alternate between all photos with and without overlays, from a single client, after a warm-up."""
    uploads = {kind: [Upload.of(each, overlays=kind) for each in examples()] for kind in ("none", "words")}
    latencies: dict[str, list[list[float]]] = {kind: [] for kind in uploads}
    cpu = dict.fromkeys(uploads, 0.0)
    for number in range(pairs + 1):
        for kind, photos in uploads.items():
            before = service.cpu_seconds()
            milliseconds = [_latency_ms(service, upload) for upload in photos]
            if number:
                latencies[kind].append(milliseconds)
                cpu[kind] += service.cpu_seconds() - before
    medians = {
        kind: [statistics.median(photo) for photo in zip(*rounds, strict=True)]
        for kind, rounds in latencies.items()
    }
    ratios = [words / none for words, none in zip(medians["words"], medians["none"], strict=True)]
    ratio = statistics.median(ratios)
    report.add(
        "overlays",
        {
            "milliseconds_per_photo": {
                kind: [round(value, 1) for value in values] for kind, values in medians.items()
            },
            "ratios": [round(each, 3) for each in ratios],
            "ratio": round(ratio, 3),
            "cpu_ratio": round(cpu["words"] / cpu["none"], 3),
        },
    )
    report.guarantee("latency of a default response relative to one without overlays", ratio, at_most=1.3)


def _latency_ms(service: Service, upload: Upload) -> float:
    response = post(service.port, upload)
    if response.status != 200:
        raise RuntimeError(f"A single photo got status {response.status}: {response.body!r}")
    return 1000 * response.seconds


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("service_cost", __doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of HTTP and loop (default: 7)")
    parser.add_argument("--seconds", type=float, default=5, help="measured per round (default: 5)")
    parser.add_argument("--pairs", type=int, default=20, help="pairs per photo for overlays (default: 20)")
    args = parser.parse_args()
    report = Report(workers=WORKERS, rounds=args.rounds, seconds=args.seconds, pairs=args.pairs)
    with serving({"workers": WORKERS}) as service:
        measure_overlays(report, service, args.pairs)
        measure_http(report, service, args.rounds, args.seconds)
    return report.finish()


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.service_cost", main))
