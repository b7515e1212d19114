"""Measures the latency of ``/healthz``, 50 times a second.

    python -m benchmarks.harness.health_probe PORT

prints a JSON list once its standard input is closed: the seconds of each response, null for a wrong one or
none. It is a process of its own, because in the process of the clients it would wait for them too.
"""

import json
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness.client import TIMEOUT, get

INTERVAL = 0.02  # seconds


@contextmanager
def probing_health(port: int) -> Iterator[list[float]]:
    """A list that holds, after the block, the seconds of each response; ``TIMEOUT`` for a wrong one."""
    command = [sys.executable, "-m", "benchmarks.harness.health_probe", str(port)]
    seconds: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        try:
            yield seconds
        finally:
            output, _ = probe.communicate()
            seconds += [TIMEOUT if each is None else each for each in json.loads(output)]


def main() -> None:
    """Probe until standard input is closed."""
    port, seconds = int(sys.argv[1]), []
    while not seconds or not select.select([sys.stdin], [], [], INTERVAL)[0]:
        response = get(port, "/healthz")
        seconds.append(response.seconds if response.status == 200 else None)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
