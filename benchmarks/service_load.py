"""Too many clients at once: who is served, who is told to come again, and does each get its own caption?

    python -m benchmarks.service_load

starts the service with two processes and measures, in turns, a few clients who keep it just busy, many who
come again when they are told to, and as many who come again at once. Then clients send different
photos, and every caption is compared with the one the captioner gives by itself.
It promises: answers are captions or 503, never anything else; the captions a second under many polite
clients are at least 90 % of those under few; the 99th percentile of /healthz stays under 50 ms meanwhile;
everybody gets the caption of the own photo. It prints JSON, and ends with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.harness.client import Answer, Crowd, Upload, ask_patiently, crowd, percentile, settle_in
from benchmarks.harness.health_probe import watching_health
from benchmarks.harness.photos import different, examples
from benchmarks.harness.report import Report, table
from benchmarks.harness.server import ROOT, Service, serving
from model import Captioner, open_image

WORKERS = 2
SETTLING = 1.5  # seconds of every round that do not count
CROWDS = {"few": (2 * WORKERS, True), "polite": (64, True), "impolite": (64, False)}
EXPECTED = ("200", "503")
GAP = 1e-3  # of the logarithm of a probability, which the service rounds to four digits


def overload(report: Report, service: Service, rounds: int, seconds: float) -> None:
    """Few, many polite and many impolite clients, in turns."""
    uploads = [Upload.of(photo, overlays="none") for photo in examples()]
    results: dict[str, list[Crowd]] = {name: [] for name in CROWDS}
    health: dict[str, list[float]] = {name: [] for name in CROWDS}
    for _ in range(rounds):
        for name, (clients, is_polite) in CROWDS.items():
            with crowd(service.port, uploads, clients, is_polite) as result:
                settle_in(result, SETTLING)
                with watching_health(service.port) as probed:
                    time.sleep(seconds)
            results[name].append(result)
            health[name] += probed
    rows = [_row(name, results[name], health[name]) for name in CROWDS]
    table(rows)
    report.add("overload", rows)
    _promise_overload(report, results, health)


def _row(name: str, results: list[Crowd], health: list[float]) -> dict[str, Any]:
    captioned = [value for result in results for value in result.milliseconds()]
    refused = [value for result in results for value in result.milliseconds(503)]
    others = sum(
        count for each in results for status, count in each.statuses().items() if status not in EXPECTED
    )
    return {
        "clients": f"{CROWDS[name][0]} {name}",
        "captions_per_second": round(statistics.median(result.rate() for result in results), 2),
        **{f"p{percent}_ms": round(percentile(captioned, percent), 1) for percent in (50, 95, 99)},
        "captioned": len(captioned),
        "refused": len(refused),
        "others": others,
        "refusal_p99_ms": round(percentile(refused, 99), 1) if refused else None,
        "health_p99_ms": round(1000 * percentile(health, 99), 1),
        "health_worst_ms": round(1000 * max(health), 1),
        "cpu_of_clients_s": round(sum(result.cpu_seconds for result in results), 1),
    }


def _promise_overload(
    report: Report, results: dict[str, list[Crowd]], health: dict[str, list[float]]
) -> None:
    everything = [answer for crowds in results.values() for each in crowds for answer in each.answers]
    unexpected = [answer for answer in everything if str(answer.status) not in EXPECTED]
    report.promise("answers that are neither 200 nor 503: none", len(unexpected), at_most=0)
    silent = [answer for answer in everything if answer.status == 503 and not answer.retry_after]
    report.promise("answers of 503 without Retry-After: none", len(silent), at_most=0)
    shares = {
        name: statistics.median(
            many.rate() / few.rate() for many, few in zip(results[name], results["few"], strict=True)
        )
        for name in ("polite", "impolite")
    }
    report.add("useful_rate_against_few", {name: round(share, 3) for name, share in shares.items()})
    report.promise("captions a second of 64 polite clients against few", shares["polite"], at_least=0.9)
    slowest = 1000 * percentile(health["polite"], 99)
    report.promise("milliseconds of /healthz under 64 polite clients, p99", slowest, at_most=50)


def own_captions(report: Report, service: Service, clients: int, pictures: int, folder: Path | None) -> None:
    """Everybody sends all of the photos, in an order of their own."""
    images = different(pictures, folder)
    expected = _captions(images)
    uploads = [Upload.of(photo, overlays="none") for photo in images]

    def mistakes(client: int) -> int:
        order = Random(client).sample(range(len(uploads)), len(uploads))
        return sum(not _is(expected[place], ask_patiently(service.port, uploads[place])) for place in order)

    with ThreadPoolExecutor(clients) as pool:
        wrong = sum(pool.map(mistakes, range(clients)))
    report.add(
        "own_captions",
        {
            "clients": clients,
            "photographs": len(images),
            "requests": clients * len(images),
            "different_captions": len({text for text, _ in expected}),
            "different_log_probs": len({round(log_prob, 4) for _, log_prob in expected}),
            "wrong": wrong,
        },
    )
    report.promise("answers without the caption of the own photo: none", wrong, at_most=0)


def _captions(images: list[bytes]) -> list[tuple[str, float]]:
    captioner = Captioner.load(ROOT / "checkpoints" / "default")
    found = [captioner.caption([open_image(photo).image])[0][0] for photo in images]
    return [(caption.text, caption.log_prob) for caption in found]


def _is(expected: tuple[str, float], answer: Answer) -> bool:
    if answer.status != 200:
        return False
    [caption] = json.loads(answer.body)["captions"]
    text, log_prob = expected
    return bool(caption["caption"] == text and abs(caption["log_prob"] - log_prob) < GAP)


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each crowd, default 5")
    parser.add_argument("--seconds", type=float, default=5, help="a round counts, default 5")
    parser.add_argument("--clients", type=int, default=16, help="with different photos, default 16")
    parser.add_argument("--pictures", type=int, default=200, help="that each of them sends, default 200")
    parser.add_argument("--images", type=Path, metavar="DIR", help="of JPEG files; default: drawn shapes")
    chosen = parser.parse_args()
    report = Report(workers=WORKERS, rounds=chosen.rounds, seconds=chosen.seconds)
    with serving({"workers": WORKERS}) as service:
        overload(report, service, chosen.rounds, chosen.seconds)
        own_captions(report, service, chosen.clients, chosen.pictures, chosen.images)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
