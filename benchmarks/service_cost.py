"""What HTTP costs, and what the overlays of a default answer cost.

    python -m benchmarks.service_cost

measures in turns, with the same photos and as many processes: the service with 16 clients, and the
captioner in a bare loop that opens, captions and writes JSON. Then, in turns again, the same request with
and without a picture for every word.
It promises: over HTTP at least 85 % of the captions a second of the bare loop; a default answer takes at
most 1.3 times the one without overlays. It prints JSON, and ends with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch

from benchmarks.harness.client import Upload, ask, crowd, settle_in
from benchmarks.harness.photos import examples
from benchmarks.harness.report import Report
from benchmarks.harness.server import ROOT, Service, serving
from model import Captioner, DecodingOptions, open_image
from service.web.responses import caption_record

WORKERS = 2
CLIENTS = 16
SETTLING = 1.5  # seconds of every round that do not count


def caption_when_told(orders: Connection) -> None:
    """Caption the examples for as many seconds as is ordered, and answer how many a second; None ends it."""
    torch.set_num_threads(1)
    captioner, images = Captioner.load(ROOT / "checkpoints" / "default"), examples()
    orders.send("ready")
    while (seconds := orders.recv()) is not None:
        done, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            data = images[done % len(images)]
            photo = open_image(data)
            [captions] = captioner.caption([photo.image], DecodingOptions())
            json.dumps(caption_record(data, photo, captions, overlays="none"))
            done += 1
        orders.send(done / (time.monotonic() - began))


@contextmanager
def bare_processes() -> Iterator[list[Connection]]:
    """As many processes as the service has, each with one torch thread, that caption when they are told."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when they load torch
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(WORKERS)]
    processes = [context.Process(target=caption_when_told, args=(theirs,)) for _, theirs in ends]
    for process in processes:
        process.start()
    connections = [ours for ours, _ in ends]
    assert [connection.recv() for connection in connections] == ["ready"] * WORKERS
    try:
        yield connections
    finally:
        for connection in connections:
            connection.send(None)
        for process in processes:
            process.join()


def bare_rate(connections: list[Connection], seconds: float) -> float:
    """Captions a second of all processes together."""
    for connection in connections:
        connection.send(seconds)
    return float(sum(connection.recv() for connection in connections))


def cost_of_http(report: Report, service: Service, rounds: int, seconds: float) -> None:
    """The service and the bare loop, in turns; the first turn of each is not counted."""
    uploads = [Upload.of(photo, overlays="none") for photo in examples()]
    over_http, bare, cpu = [], [], []
    with bare_processes() as connections:
        bare_rate(connections, SETTLING)
        for _ in range(rounds):
            with crowd(service.port, uploads, CLIENTS) as result:
                settle_in(result, SETTLING)
                time.sleep(seconds)
            over_http.append(result.rate())
            cpu.append(result.cpu_seconds / len(result.answers))
            bare.append(bare_rate(connections, seconds))
    ratio = statistics.median(http / loop for http, loop in zip(over_http, bare, strict=True))
    report.add(
        "http",
        {
            "clients": CLIENTS,
            "captions_per_second_over_http": [round(rate, 2) for rate in over_http],
            "captions_per_second_bare": [round(rate, 2) for rate in bare],
            "ratio": round(ratio, 3),
            "client_cpu_ms_per_request": round(1000 * statistics.median(cpu), 2),
        },
    )
    report.promise("captions a second over HTTP against a bare loop", ratio, at_least=0.85)


def cost_of_overlays(report: Report, service: Service, pairs: int) -> None:
    """A client alone sends all photos with and without overlays, in turns; the first turns warm up."""
    uploads = {kind: [Upload.of(each, overlays=kind) for each in examples()] for kind in ("none", "words")}
    taken: dict[str, list[list[float]]] = {kind: [] for kind in uploads}
    cpu = dict.fromkeys(uploads, 0.0)
    for number in range(pairs + 1):
        for kind, those in uploads.items():
            before = service.cpu_seconds()
            milliseconds = [_milliseconds(service, upload) for upload in those]
            if number:
                taken[kind].append(milliseconds)
                cpu[kind] += service.cpu_seconds() - before
    medians = {kind: [statistics.median(each) for each in zip(*taken[kind], strict=True)] for kind in taken}
    ratios = [words / none for words, none in zip(medians["words"], medians["none"], strict=True)]
    ratio = statistics.median(ratios)
    report.add(
        "overlays",
        {
            "milliseconds_of_each_photograph": {
                kind: [round(value, 1) for value in values] for kind, values in medians.items()
            },
            "ratios": [round(each, 3) for each in ratios],
            "ratio": round(ratio, 3),
            "ratio_of_computing": round(cpu["words"] / cpu["none"], 3),
        },
    )
    report.promise("time of a default answer against one without overlays", ratio, at_most=1.3)


def _milliseconds(service: Service, upload: Upload) -> float:
    answer = ask(service.port, upload)
    if answer.status != 200:
        raise RuntimeError(f"A photo alone was answered with {answer.status}: {answer.body!r}")
    return 1000 * answer.seconds


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="of HTTP and bare, default 7")
    parser.add_argument("--seconds", type=float, default=5, help="a round counts, default 5")
    parser.add_argument("--pairs", type=int, default=20, help="a photo, for overlays; default 20")
    chosen = parser.parse_args()
    report = Report(workers=WORKERS, rounds=chosen.rounds, seconds=chosen.seconds, pairs=chosen.pairs)
    with serving({"workers": WORKERS}) as service:
        cost_of_overlays(report, service, chosen.pairs)
        cost_of_http(report, service, chosen.rounds, chosen.seconds)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
