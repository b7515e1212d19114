"""How gunicorn runs the service: ``gunicorn -c service/gunicorn_config.py "service.app:create_app()"``.

One process per core, each with one torch thread and with enough threads for health checks and slow uploads
while another one captions.
"""

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any, NoReturn


@atexit.register  # on_exit of gunicorn is not called if the service cannot start
def _remove_metrics() -> None:
    """Remove the metrics, unless the folder was set by the user or this is a worker."""
    folder = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""))
    if folder.name.startswith(f"sightline-{os.getpid()}-"):
        shutil.rmtree(folder, ignore_errors=True)


def _stop(number: int, frame: object) -> NoReturn:
    """End a service that is still loading, without an exception, which imports may swallow."""
    _remove_metrics()
    print("\nThe service was stopped before it was ready.", file=sys.stderr, flush=True)
    os._exit(0)  # as later


# Until gunicorn handles signals, which it does after loading; not after a reload, nor if they are ignored.
for _signal in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_signal) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(_signal, _stop)

# Before torch is imported, by the imports below: it reads both once. Its threads spin; more of them than
# cores stall one another. It needs a temporary folder; on a read-only disk there may be no other.
os.environ["OMP_NUM_THREADS"] = "1"
_memory = Path("/dev/shm")  # files here never wait for a disk
_has_memory = os.access(_memory, os.W_OK)
if _has_memory:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_memory))

from service.config import ServiceConfig  # noqa: E402
from service.errors import ConfigError  # noqa: E402

try:
    _service = ServiceConfig.from_env()
except ConfigError as error:
    sys.exit(f"The service cannot start. {error}")

# The processes share their metrics in files of this folder. Before prometheus_client is imported, which reads
# it once.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # set by the user, or before a reload
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(
        prefix=f"sightline-{os.getpid()}-", dir=_memory if _has_memory else None
    )

bind = _service.bind
workers = _service.processes
worker_class = "gthread"
threads = _service.threads
# Loading before the fork shares the memory of the weights and makes new workers ready at once. CUDA does not
# survive a fork.
preload_app = _service.device == "cpu"
timeout = 60  # seconds without a heartbeat of the process; slow requests do not count
graceful_timeout = 30  # seconds for requests in flight at shutdown
keepalive = 5  # seconds
limit_request_line = 4094  # bytes
# Restarts a worker, as a precaution against leaks. Rejected requests count too.
max_requests = 50_000
max_requests_jitter = 5_000
control_socket_disable = True  # unused, and it would write to the home folder
# JSON lines. The application logs every request, so gunicorn's access log is off.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "service.web.logs.LineFormatter"}},
    "filters": {"gunicorn": {"()": "service.web.logs.GunicornFilter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "service": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
        "gunicorn.error": {
            "level": "INFO",
            "handlers": ["stderr"],
            "filters": ["gunicorn"],
            "propagate": False,
        },
        "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
    },
}
if _has_memory:
    worker_tmp_dir = str(_memory)  # for heartbeats


def on_reload(server: Any) -> None:
    """Load the checkpoint again; if that fails, keep the current one."""
    if not preload_app:  # then every worker loads it
        return
    current, server.app.callable = server.app.callable, None
    try:
        server.app.wsgi()
    except (Exception, SystemExit) as error:  # of create_app, which has printed why
        server.log.error("Reload failed (%r); the current checkpoint stays in service.", error)
        server.app.callable = current
    else:
        server.log.info("The checkpoint was loaded again.")


def pre_fork(server: Any, worker: Any) -> None:  # gunicorn has no types
    """Give the worker the lowest unused number."""
    taken = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in count(1) if number not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """Let the worker continue the metrics of the previous one with its number."""
    from service.web.metrics import share_by_name

    share_by_name(f"worker{worker.number}")
    logging.captureWarnings(True)


def post_worker_init(worker: Any) -> None:
    """Warm up after the fork, and become unready on SIGTERM."""
    captioning = worker.wsgi.extensions["worker"]
    captioning.start_warm_up()

    def drain_and_stop(number: int, frame: Any) -> None:
        captioning.is_draining = True
        worker.handle_exit(number, frame)

    signal.signal(signal.SIGTERM, drain_and_stop)


def child_exit(server: Any, worker: Any) -> None:
    """Remove the requests in flight of the dead worker from the metrics."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(f"worker{worker.number}")  # type: ignore[no-untyped-call]
