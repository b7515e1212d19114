"""How many processes, of how many threads of torch, under which worker of gunicorn? The choice, measured.

    python -m benchmarks.service_process_model

starts the service in four ways at a time, all with the same captioner, queue and limits, and lets 1, 4 and
16 clients ask each of them in turns, in short rounds; the others have nothing to do meanwhile. It prints
captions a second, latencies and those of /healthz as JSON, and as a table on standard error.
It promises: with 16 clients the way that ships gives at least 95 % of the captions a second of the best of
the others. It ends with 1 if that is broken.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from contextlib import ExitStack
from typing import Any

from flask import Flask

from benchmarks.harness.client import Crowd, Upload, crowd, percentile, settle_in
from benchmarks.harness.health_probe import watching_health
from benchmarks.harness.photos import examples
from benchmarks.harness.report import Report, table
from benchmarks.harness.server import Service, serving

CLIENTS = (1, 4, 16)
SETTLING = 1.0  # seconds of every round that do not count
SHIPPED = "2 x 1 thread, gthread"
# Processes, threads of torch, worker of gunicorn.
WAYS = {
    SHIPPED: (2, 1, "gthread"),
    "1 x 2 threads, gthread": (1, 2, "gthread"),
    "2 x 1 thread, sync": (2, 1, "sync"),
    "5 x 1 thread, gthread": (5, 1, "gthread"),
}


def create_app() -> Flask:
    """The service with as many torch threads as ``TORCH_THREADS`` says; gunicorn calls this."""
    import torch

    from service.app import create_app as shipped

    app = shipped()
    # Afterwards: what torch starts while the weights are loaded would not survive the fork.
    torch.set_num_threads(int(os.environ["TORCH_THREADS"]))
    return app


def started(way: str, stack: ExitStack) -> Service:
    """The service in one of the ways."""
    workers, threads, kind = WAYS[way]
    # With more than one thread, gunicorn quietly makes gthread of sync.
    options = ("--worker-class", kind, *(("--threads", "1") if kind == "sync" else ()))
    settings = {"workers": workers, "TORCH_THREADS": threads}
    application = "benchmarks.service_process_model:create_app()"
    return stack.enter_context(serving(settings, application=application, options=options))


def measure(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for every way and number of clients."""
    uploads = [Upload.of(photo, overlays="none") for photo in examples()]
    results: dict[tuple[str, int], list[Crowd]] = {(way, count): [] for count in CLIENTS for way in WAYS}
    health: dict[tuple[str, int], list[float]] = {key: [] for key in results}
    with ExitStack() as stack:
        services = {way: started(way, stack) for way in WAYS}
        for number in range(rounds + 1):
            for way, count in results:
                with crowd(services[way].port, uploads, count) as result:
                    settle_in(result, SETTLING)
                    with watching_health(services[way].port) as probed:
                        time.sleep(seconds)
                if number:  # the first round warms up
                    results[way, count].append(result)
                    health[way, count] += probed
    return [_row(way, count, results[way, count], health[way, count]) for way, count in results]


def _row(way: str, clients: int, results: list[Crowd], health: list[float]) -> dict[str, Any]:
    captioned = [value for result in results for value in result.milliseconds()]
    answered = sum(len(result.answers) for result in results)
    return {
        "processes": way,
        "clients": clients,
        "captions_per_second": round(statistics.median(result.rate() for result in results), 2),
        **{f"p{percent}_ms": round(percentile(captioned, percent), 1) for percent in (50, 95, 99)},
        "health_p99_ms": round(1000 * percentile(health, 99), 1),
        "not_captioned": answered - len(captioned),
    }


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_process_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each, default 5")
    parser.add_argument("--seconds", type=float, default=3, help="a round counts, default 3")
    chosen = parser.parse_args()
    report = Report(rounds=chosen.rounds, seconds=chosen.seconds)
    rows = measure(chosen.rounds, chosen.seconds)
    table(rows)
    report.add("ways", rows)
    rates = {row["processes"]: row["captions_per_second"] for row in rows if row["clients"] == max(CLIENTS)}
    shipped = rates.pop(SHIPPED)
    share = shipped / max(rates.values())
    report.promise("captions a second of what ships against the best of the others", share, at_least=0.95)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
