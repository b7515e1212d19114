"""Asks whether the service lives, 50 times a second, and how long it takes to say so.

    python -m benchmarks.harness.health_probe PORT

prints, once its standard input is closed, a JSON list: seconds for every time it asked, null where there was
no good answer. It is a process of its own, as a probe is: in that of the clients it would wait for them too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness.client import get

PAUSE = 0.02  # seconds
PATIENCE = 60.0  # seconds, to count an answer that never came


@contextmanager
def watching_health(port: int) -> Iterator[list[float]]:
    """A list that has, afterwards, the seconds each answer of /healthz took; ``PATIENCE`` for a bad one."""
    command = [sys.executable, "-m", "benchmarks.harness.health_probe", str(port)]
    seconds: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        try:
            yield seconds
        finally:
            said, _ = probe.communicate()
            seconds += [PATIENCE if took is None else took for took in json.loads(said)]


def main() -> None:
    """The command line."""
    port, taken, is_over = int(sys.argv[1]), [], threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not is_over.is_set():
        answer = get(port, "/healthz")
        taken.append(answer.seconds if answer.status == 200 else None)
        time.sleep(PAUSE)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
