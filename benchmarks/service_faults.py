"""Kills, stops and reloads the service under load, and takes its disks away.

    python -m benchmarks.service_faults

kills one of two workers under the load of 16 clients, repeatedly; kills the only worker of a service and
waits for the next caption; stops the service with requests in flight; reloads it under load; and runs it
with every file system read-only, with full folders for temporary files, and with a standard error that cannot
be written.

Guarantees: only the requests of a killed worker fail, and the next caption comes within 2 s; requests in
flight complete when the service stops, with exit status 0; a reload fails no request; without a disk,
captions, images and metrics are unaffected.
Where file systems cannot be mounted in a namespace (unshare), the tests of disks are skipped.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness.client import BROKEN, Upload, get, post
from benchmarks.harness.load import load
from benchmarks.harness.photos import examples
from benchmarks.harness.report import Report, benchmark_parser
from benchmarks.harness.server import BROKEN_DISKS, NotReadyError, Service, serving
from model.command import run_command

WORKERS = 2
CLIENTS = 16
UPLOADS = [Upload.of(photo, overlays="none") for photo in examples()]


def kill_one_of_two(report: Report, kills: int) -> None:
    """Pause a worker, count its connections, kill it, and count the requests that broke."""
    connections, broken_counts, late = [], [], 0
    with serving({"workers": WORKERS}) as service:
        for _ in range(kills):
            with load(service.port, UPLOADS, CLIENTS) as result:
                time.sleep(3)
                worker = service.workers()[0]
                os.kill(worker, signal.SIGSTOP)  # or it would accept and complete others while we count
                time.sleep(0.1)
                connections.append(service.connections(worker))
                killed = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                time.sleep(4)
            broken = [response for response in result.responses if response.status == BROKEN]
            broken_counts.append(len(broken))
            late += sum(response.started > killed for response in broken)
            others = set(result.statuses()) - {str(BROKEN), "200", "503"}
            report.guarantee("other status codes while a worker is killed", len(others), at_most=0)
    report.add("kill_one_of_two", {"connections_of_killed": connections, "broken_requests": broken_counts})
    excess = max(broken - owned for broken, owned in zip(broken_counts, connections, strict=True))
    report.guarantee("broken requests beyond those of the killed worker", excess, at_most=0)
    report.guarantee("broken requests that started after the kill", late, at_most=0)


def kill_only_worker(report: Report, kills: int) -> None:
    """Measure how long there is no caption after the only worker is killed."""
    seconds = []
    with serving({"workers": 1}) as service:
        for _ in range(kills):
            [worker] = service.workers()
            os.kill(worker, signal.SIGKILL)
            start = time.monotonic()
            while post(service.port, UPLOADS[0]).status != 200:
                time.sleep(0.01)
            seconds.append(round(time.monotonic() - start, 2))
    report.add("kill_only_worker", {"seconds_to_next_caption": seconds})
    report.guarantee("seconds to the next caption after the only worker is killed", max(seconds), at_most=2)


def stop_in_flight(report: Report) -> None:
    """Stop the service while requests of several photos each are all in flight."""
    uploads = [Upload.of(*examples()[:4], path="/v1/captions:batch", overlays="none")] * 8
    with serving({"workers": WORKERS}) as service, ThreadPoolExecutor(len(uploads)) as pool:
        sent = [pool.submit(post, service.port, upload) for upload in uploads]
        while service.metric("caption_inflight") < len(uploads) and not any(each.done() for each in sent):
            time.sleep(0.01)
        in_flight = service.metric("caption_inflight")
        status = service.stop()
        statuses = Counter(each.result().status for each in sent)
    report.add("stop_in_flight", {"in_flight": in_flight, "statuses": statuses, "exit_status": status})
    report.guarantee("requests in flight that did not complete", len(uploads) - statuses[200], at_most=0)
    report.guarantee("exit status after them", status, at_least=0, at_most=0)


def reload_under_load(report: Report, reloads: int) -> None:
    """Replace all workers, and count the requests that fail meanwhile."""
    with serving({"workers": WORKERS}) as service:
        before = service.workers()
        with load(service.port, UPLOADS, CLIENTS) as result:
            for _ in range(reloads):
                time.sleep(3)
                service.process.send_signal(signal.SIGHUP)
            time.sleep(10)
        replaced = not set(before) & set(service.workers())
    statuses = result.statuses()
    report.add("reload_under_load", {"statuses": statuses, "all_workers_replaced": replaced})
    failed = sum(count for status, count in statuses.items() if status not in ("200", "503"))
    report.guarantee("requests that fail during a reload", failed, at_most=0)
    report.guarantee("all workers are replaced by the reload", float(replaced), at_least=1)


def serve_without_disk(report: Report) -> None:
    """Send every kind of request while nothing can be written."""
    for name, within in BROKEN_DISKS.items():
        if subprocess.run([*within, "true"], capture_output=True).returncode:
            report.add(f"disk_{name}", "skipped: file systems cannot be mounted here")
            continue
        try:
            with serving({"workers": WORKERS, "HOME": "/tmp"}, within=within) as service:
                wrong = _wrong_responses(service)
        except NotReadyError as error:
            wrong = [str(error)]
        report.add(f"disk_{name}", {"wrong": wrong})
        report.guarantee(f"wrong responses, disk {name}", len(wrong), at_most=0)


def _wrong_responses(service: Service) -> list[str]:
    uploads = [
        *UPLOADS,
        *(Upload.of(photo) for photo in examples()),
        Upload.of(examples()[0], path="/v1/overlays"),
        Upload.of(*examples(), path="/v1/captions:batch"),
    ]
    wrong = [upload.path for upload in uploads if post(service.port, upload).status != 200]
    pages = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
    wrong += [page for page in pages if get(service.port, page).status != 200]
    counted = service.metric("caption_image_megapixels_count")
    if counted != len(uploads) - 1 + len(examples()):
        wrong.append(f"/metrics counts {counted} photos")
    return wrong


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = benchmark_parser("service_faults", __doc__)
    parser.add_argument("--times", type=int, default=5, help="how often to kill a worker (default: 5)")
    args = parser.parse_args()
    report = Report(workers=WORKERS, clients=CLIENTS, times=args.times)
    kill_one_of_two(report, args.times)
    kill_only_worker(report, args.times)
    stop_in_flight(report)
    reload_under_load(report, reloads=2)
    serve_without_disk(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.service_faults", main))
