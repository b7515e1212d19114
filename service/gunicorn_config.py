"""How gunicorn runs the service: ``gunicorn -c service/gunicorn_config.py "service.app:create_app()"``.

One process a core with one torch thread each, and many more threads for HTTP than ever caption, so
that health checks and slow uploads always find one.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from service.config import ServiceConfig, usable_cores
from service.errors import ConfigError

# Before torch is imported: it reads this once. Its threads spin, so more than cores stall one another.
os.environ["OMP_NUM_THREADS"] = "1"

try:
    _service = ServiceConfig.from_env()
except ConfigError as error:
    sys.exit(f"The captioning service cannot start. {error}")

_memory = Path("/dev/shm")  # files here are never written to a disk, which could stall
_has_memory = os.access(_memory, os.W_OK)
# torch asks for a folder for temporary files when it is imported; on a read-only disk there may be no other.
if _has_memory:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_memory))
# The processes add up their figures in files of this folder. Before prometheus_client is imported: it reads
# this once.
_OWN_FIGURES = f"sightline-{os.getpid()}-"
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # else it is somebody's choice, or we are reloading
    _figures = tempfile.mkdtemp(prefix=_OWN_FIGURES, dir=_memory if _has_memory else None)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _figures

bind = _service.bind
workers = _service.workers or (usable_cores() if _service.device == "cpu" else 1)
worker_class = "gthread"
threads = _service.threads
# Loading once before the fork shares the weights' memory and makes a fresh worker ready at once; a GPU
# does not survive a fork.
preload_app = _service.device == "cpu"
timeout = 60  # seconds without a sign of life of the process; a slow request does not count
graceful_timeout = 30  # seconds for requests in flight when stopping
keepalive = 5  # seconds
limit_request_line = 4094  # bytes
# Then a fresh process: a belt against leaks. Refusals count too, and a crowd makes many.
max_requests = 50_000
max_requests_jitter = 5_000
control_socket_disable = True  # nobody needs it, and it would write to the home folder
# A line of JSON for everything. The application tells of every request; gunicorn's own line stays off.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "service.web.logs.LineFormatter"}},
    "filters": {"discreet": {"()": "service.web.logs.Discreet"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "service": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
        "gunicorn.error": {
            "level": "INFO",
            "handlers": ["stderr"],
            "filters": ["discreet"],
            "propagate": False,
        },
        "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
    },
}
if _has_memory:
    worker_tmp_dir = str(_memory)  # for heartbeats


def pre_fork(server: Any, worker: Any) -> None:  # gunicorn has no types
    """Give the worker the lowest number that no living one has."""
    taken = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in count(1) if number not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Let the worker write its figures where the one before it with its number left off."""
    from service.web.metrics import share_by_name

    share_by_name(f"worker{worker.number}")
    logging.captureWarnings(True)


def post_worker_init(worker: Any) -> None:
    """Warm every process up by itself, after the fork; once it is asked to stop it is not ready any more."""
    inference = worker.wsgi.extensions["inference"]
    inference.start_warm_up()

    def drain_and_stop(number: int, frame: Any) -> None:
        inference.is_draining = True
        worker.handle_exit(number, frame)

    signal.signal(signal.SIGTERM, drain_and_stop)


def child_exit(server: Any, worker: Any) -> None:
    """Forget what the dead worker had in flight."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(f"worker{worker.number}")  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Remove the figures, unless the folder was somebody's choice."""
    figures = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if figures.name.startswith(_OWN_FIGURES):
        shutil.rmtree(figures, ignore_errors=True)
