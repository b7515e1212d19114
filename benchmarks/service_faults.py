"""Processes that are killed, stopped or reloaded under load, and disks that take nothing.

    python -m benchmarks.service_faults

kills one of two workers under the load of 16 clients, again and again; kills the only worker of a service,
and waits for the next caption; asks the service to stop while it has requests in flight; reloads it under
load; and serves with every file system read-only, with those for temporary files full, and with a standard
error that takes nothing.
It promises: only the requests of a killed worker fail, and the next caption comes within 2 s; of those in
flight all finish when the service stops, with exit status 0; a reload fails nobody; without a disk there are
captions, pictures and metrics as always. It prints JSON, and ends with 1 if a promise is broken. The drills
of disks need to mount file systems in a namespace (unshare); where that is not allowed they are left out.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness.client import BROKEN, Upload, ask, crowd, get
from benchmarks.harness.photos import examples
from benchmarks.harness.report import Report
from benchmarks.harness.server import NotReadyError, Service, serving

WORKERS = 2
CLIENTS = 16
CAPTIONS = [Upload.of(photo, overlays="none") for photo in examples()]
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec")
READ_ONLY = "mount -o remount,bind,ro /"
FULL = """
for folder in /tmp /var/tmp; do
    mount -t tmpfs -o size=4k tmpfs $folder
    head -c 4096 /dev/zero > $folder/all
done
"""
RUN = 'exec "$@"'
# Commands to run the service in.
DISKS = {
    "full_log": ("sh", "-ec", f"{RUN} 2> /dev/full", "sh"),
    "read_only": (*IN_NAMESPACE, f"{READ_ONLY}; {RUN}", "sh"),
    "full": (*IN_NAMESPACE, f"{READ_ONLY}; {FULL} {RUN}", "sh"),
}


def kill_one_of_two(report: Report, kills: int) -> None:
    """Stop a worker, see how many clients it has, kill it, and see how many requests broke."""
    had, broke, late = [], [], 0
    with serving({"workers": WORKERS}) as service:
        for _ in range(kills):
            with crowd(service.port, CAPTIONS, CLIENTS) as result:
                time.sleep(3)
                worker = service.workers()[0]
                os.kill(worker, signal.SIGSTOP)  # or it would take and finish others while they are counted
                time.sleep(0.1)
                had.append(service.connections(worker))
                killed = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                time.sleep(4)
            broken = [answer for answer in result.answers if answer.status == BROKEN]
            broke.append(len(broken))
            late += sum(answer.began > killed for answer in broken)
            others = set(result.statuses()) - {str(BROKEN), "200", "503"}
            report.promise("other answers while a worker is killed: none", len(others), at_most=0)
    report.add("kill_one_of_two", {"connections_of_the_killed": had, "requests_that_broke": broke})
    excess = max(broken - owned for broken, owned in zip(broke, had, strict=True))
    report.promise("requests that broke beyond those of the killed worker: none", excess, at_most=0)
    report.promise("requests that began after the kill and broke: none", late, at_most=0)


def kill_the_only_one(report: Report, kills: int) -> None:
    """How long there is no caption when all that captions is killed."""
    seconds = []
    with serving({"workers": 1}) as service:
        for _ in range(kills):
            [worker] = service.workers()
            os.kill(worker, signal.SIGKILL)
            began = time.monotonic()
            while ask(service.port, CAPTIONS[0]).status != 200:
                time.sleep(0.01)
            seconds.append(round(time.monotonic() - began, 2))
    report.add("kill_the_only_one", {"seconds_to_the_next_caption": seconds})
    report.promise("seconds to the next caption when the only worker is killed", max(seconds), at_most=2)


def stop_in_flight(report: Report) -> None:
    """Requests of several photos each, so that all of them are in flight when the service is stopped."""
    uploads = [Upload.of(*examples()[:4], path="/v1/captions:batch", overlays="none")] * 8
    with serving({"workers": WORKERS}) as service, ThreadPoolExecutor(len(uploads)) as pool:
        asked = [pool.submit(ask, service.port, upload) for upload in uploads]
        while service.metric("caption_inflight") < len(uploads) and not any(each.done() for each in asked):
            time.sleep(0.01)
        in_flight = service.metric("caption_inflight")
        status = service.stop()
        statuses = Counter(each.result().status for each in asked)
    report.add("stop_in_flight", {"in_flight": in_flight, "statuses": statuses, "exit_status": status})
    report.promise("requests in flight that did not finish: none", len(uploads) - statuses[200], at_most=0)
    report.promise("exit status after them", status, at_least=0, at_most=0)


def reload_under_load(report: Report, reloads: int) -> None:
    """What becomes of requests while all workers are replaced."""
    with serving({"workers": WORKERS}) as service:
        before = service.workers()
        with crowd(service.port, CAPTIONS, CLIENTS) as result:
            for _ in range(reloads):
                time.sleep(3)
                service.process.send_signal(signal.SIGHUP)
            time.sleep(10)
        replaced = not set(before) & set(service.workers())
    statuses = result.statuses()
    report.add("reload_under_load", {"statuses": statuses, "workers_are_new": replaced})
    failed = sum(count for status, count in statuses.items() if status not in ("200", "503"))
    report.promise("requests that fail while the service is reloaded: none", failed, at_most=0)
    report.promise("workers that were replaced by the reload: all", float(replaced), at_least=1)


def serve_without_a_disk(report: Report) -> None:
    """Captions, pictures and metrics when nothing can be written."""
    for name, within in DISKS.items():
        if subprocess.run([*within, "true"], capture_output=True).returncode:
            report.add(f"disk_{name}", "left out: file systems cannot be mounted here")
            continue
        try:
            with serving({"workers": WORKERS, "HOME": "/tmp"}, within=within) as service:
                wrong = _wrong_answers(service)
        except NotReadyError as error:
            wrong = [str(error)]
        report.add(f"disk_{name}", {"wrong": wrong})
        report.promise(f"wrong answers, disks {name}: none", len(wrong), at_most=0)


def _wrong_answers(service: Service) -> list[str]:
    uploads = [
        *CAPTIONS,
        *(Upload.of(photo) for photo in examples()),
        Upload.of(examples()[0], path="/v1/overlays"),
        Upload.of(*examples(), path="/v1/captions:batch"),
    ]
    wrong = [upload.path for upload in uploads if ask(service.port, upload).status != 200]
    pages = ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
    wrong += [page for page in pages if get(service.port, page).status != 200]
    counted = service.metric("caption_image_megapixels_count")
    if counted != len(uploads) - 1 + len(examples()):
        wrong.append(f"/metrics counts {counted} photos")
    return wrong


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=5, help="that a worker is killed, default 5")
    chosen = parser.parse_args()
    report = Report(workers=WORKERS, clients=CLIENTS, times=chosen.times)
    kill_one_of_two(report, chosen.times)
    kill_the_only_one(report, chosen.times)
    stop_in_flight(report)
    reload_under_load(report, reloads=2)
    serve_without_a_disk(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
