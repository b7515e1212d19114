"""Measures the service under more clients than it can serve.

    python -m benchmarks.service_load

starts the service with two processes and alternates between a few clients that keep it just busy, many that
wait as long as Retry-After says, and as many that retry immediately. Then clients send different photos, and
every response is compared with the captioner's own.

Guarantees: every response is a caption or a 503 with Retry-After; many clients that back off get at least
90% of the throughput of a few; the 99th percentile of /healthz under them is at most 50 ms; every client
gets the captions of its own photos.
"""

import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.harness.client import Response, Upload, post_with_retries
from benchmarks.harness.load import Load, measure_load, percentile, summary
from benchmarks.harness.photos import different_photos, examples
from benchmarks.harness.report import Report, benchmark_parser
from benchmarks.harness.server import ROOT, Service, serving
from model import Captioner, open_image
from model.command import run_command

WORKERS = 2
LOADS = {"few": (2 * WORKERS, True), "back_off": (64, True), "retry_at_once": (64, False)}
TOLERANCE = 1e-3  # of log-probabilities, which the service rounds to four decimals


def measure_overload(report: Report, service: Service, rounds: int, seconds: float) -> None:
    """Alternate between the loads."""
    uploads = [Upload.of(photo, overlays="none") for photo in examples()]
    results: dict[str, list[Load]] = {name: [] for name in LOADS}
    for _ in range(rounds):
        for name, (clients, backs_off) in LOADS.items():
            results[name].append(measure_load(service.port, uploads, clients, seconds, backs_off=backs_off))
    rows = [_row(name, loads) for name, loads in results.items()]
    report.add("overload", rows)
    responses = [response for loads in results.values() for each in loads for response in each.responses]
    unexpected = [response for response in responses if response.status not in (200, 503)]
    report.guarantee("responses other than 200 and 503", len(unexpected), at_most=0)
    no_header = [response for response in responses if response.status == 503 and not response.retry_after]
    report.guarantee("503 responses without Retry-After", len(no_header), at_most=0)
    shares = {
        name: statistics.median(
            many.rate() / few.rate() for many, few in zip(results[name], results["few"], strict=True)
        )
        for name in ("back_off", "retry_at_once")
    }
    report.add("throughput_relative_to_few", {name: round(share, 3) for name, share in shares.items()})
    report.guarantee("throughput of 64 clients relative to few", shares["back_off"], at_least=0.9)
    health = 1000 * percentile((seconds for each in results["back_off"] for seconds in each.health), 99)
    report.guarantee("p99 of /healthz under 64 clients, ms", health, at_most=50)


def _row(name: str, loads: list[Load]) -> dict[str, Any]:
    refused = [latency for each in loads for latency in each.latencies_ms(503)]
    return {
        "clients": f"{LOADS[name][0]} {name}",
        **summary(loads),
        "refused": len(refused),
        "refused_p99_ms": round(percentile(refused, 99), 1) if refused else None,
        "health_max_ms": round(1000 * max(seconds for each in loads for seconds in each.health), 1),
        "cpu_of_clients_s": round(sum(each.cpu_seconds for each in loads), 1),
    }


def check_captions(report: Report, service: Service, clients: int, photos: list[bytes]) -> None:
    """Every client sends all photos, in an order of its own."""
    captioner = Captioner.load(ROOT / "checkpoints" / "default")
    best = [captioner.caption([open_image(photo).image])[0][0] for photo in photos]
    expected = [(caption.text, caption.log_prob) for caption in best]
    uploads = [Upload.of(photo, overlays="none") for photo in photos]

    def count_wrong(client: int) -> int:
        order = Random(client).sample(range(len(uploads)), len(uploads))
        return sum(not _is(expected[i], post_with_retries(service.port, uploads[i])) for i in order)

    with ThreadPoolExecutor(clients) as pool:
        wrong = sum(pool.map(count_wrong, range(clients)))
    report.add(
        "own_captions",
        {
            "clients": clients,
            "photos": len(photos),
            "requests": clients * len(photos),
            "different_captions": len({text for text, _ in expected}),
            "different_log_probs": len({round(log_prob, 4) for _, log_prob in expected}),
            "wrong": wrong,
        },
    )
    report.guarantee("responses without the caption of the client's own photo", wrong, at_most=0)


def _is(expected: tuple[str, float], response: Response) -> bool:
    if response.status != 200:
        return False
    [caption] = json.loads(response.body)["captions"]
    text, log_prob = expected
    return bool(caption["caption"] == text and abs(caption["log_prob"] - log_prob) < TOLERANCE)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("service_load", __doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds of each load (default: 5)")
    add("--seconds", type=float, default=5, help="measured per round (default: 5)")
    add("--clients", type=int, default=16, help="clients that send different photos (default: 16)")
    add("--photos", type=int, default=200, help="photos that each of them sends (default: 200)")
    add("--images", type=Path, metavar="DIR", help="folder of JPEG files (default: drawn shapes)")
    args = parser.parse_args()
    report = Report(workers=WORKERS, rounds=args.rounds, seconds=args.seconds)
    with serving({"workers": WORKERS}) as service:
        measure_overload(report, service, args.rounds, args.seconds)
        check_captions(report, service, args.clients, different_photos(args.photos, args.images))
    return report.finish()


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.service_load", main))
