"""Compares process models: worker processes, torch threads and gunicorn worker classes.

    python -m benchmarks.service_process_model

starts the service in four configurations with the same captioner, queue and limits, and alternates between
them with 1, 4 and 16 clients, in short rounds; the other services are idle meanwhile.

Guarantee: with 16 clients, the default configuration reaches at least 95% of the throughput of the best
other one.
"""

import os
import sys
from contextlib import ExitStack
from typing import Any

from flask import Flask

from benchmarks.harness.client import Upload
from benchmarks.harness.load import Load, measure_load, summary
from benchmarks.harness.photos import examples
from benchmarks.harness.report import Report, benchmark_parser
from benchmarks.harness.server import Service, serving
from model.command import run_command

CLIENTS = (1, 4, 16)
DEFAULT = "2 x 1 thread, gthread"
# Processes, torch threads, gunicorn worker class.
PROCESS_MODELS = {
    DEFAULT: (2, 1, "gthread"),
    "1 x 2 threads, gthread": (1, 2, "gthread"),
    "2 x 1 thread, sync": (2, 1, "sync"),
    "5 x 1 thread, gthread": (5, 1, "gthread"),
}


def create_app() -> Flask:
    """The service with ``TORCH_THREADS`` torch threads; called by gunicorn."""
    import torch

    from service.app import create_app as create_default_app

    app = create_default_app()
    # Afterwards: threads that torch starts while loading the weights would not survive the fork.
    torch.set_num_threads(int(os.environ["TORCH_THREADS"]))
    return app


def start(name: str, stack: ExitStack) -> Service:
    """The service in one of the process models."""
    workers, threads, worker_class = PROCESS_MODELS[name]
    # With more than one thread gunicorn silently replaces sync by gthread.
    options = ("--worker-class", worker_class, *(("--threads", "1") if worker_class == "sync" else ()))
    settings = {"workers": workers, "TORCH_THREADS": threads}
    application = "benchmarks.service_process_model:create_app()"
    return stack.enter_context(serving(settings, application=application, options=options))


def measure(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for every process model and number of clients."""
    uploads = [Upload.of(photo, overlays="none") for photo in examples()]
    results: dict[tuple[str, int], list[Load]] = {
        (name, clients): [] for clients in CLIENTS for name in PROCESS_MODELS
    }
    with ExitStack() as stack:
        services = {name: start(name, stack) for name in PROCESS_MODELS}
        for number in range(rounds + 1):
            for (name, clients), loads in results.items():
                result = measure_load(services[name].port, uploads, clients, seconds)
                if number:  # the first round is a warm-up
                    loads.append(result)
    return [
        {"processes": name, "clients": clients, **summary(loads)}
        for (name, clients), loads in results.items()
    ]


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("service_process_model", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    parser.add_argument("--seconds", type=float, default=3, help="measured per round (default: 3)")
    args = parser.parse_args()
    report = Report(rounds=args.rounds, seconds=args.seconds)
    rows = measure(args.rounds, args.seconds)
    report.add("process_models", rows)
    rates = {row["processes"]: row["captions_per_second"] for row in rows if row["clients"] == max(CLIENTS)}
    default = rates.pop(DEFAULT)
    share = default / max(rates.values())
    report.guarantee("throughput of the default relative to the best other", share, at_least=0.95)
    return report.finish()


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.service_process_model", main))
