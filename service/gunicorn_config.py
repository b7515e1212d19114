"""How gunicorn runs the service: ``gunicorn -c service/gunicorn_config.py "service.app:create_app()"``.

One process a core with one torch thread each, and many more threads for HTTP than ever caption, so
that health checks and slow uploads always find one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from service.config import ConfigError, ServiceConfig

# Before torch is imported: it reads this once. Its threads spin, so more than cores stall one another.
os.environ["OMP_NUM_THREADS"] = "1"

try:
    _service = ServiceConfig.from_env()
except ConfigError as error:
    sys.exit(f"The captioning service cannot start. {error}")

bind = _service.bind
workers = _service.workers or (len(os.sched_getaffinity(0)) if _service.device == "cpu" else 1)
worker_class = "gthread"
threads = _service.threads
# Loading once before the fork shares the weights' memory and makes a fresh worker ready at once; a GPU
# does not survive a fork.
preload_app = _service.device == "cpu"
timeout = 60  # seconds without a sign of life of the process; a slow request does not count
graceful_timeout = 30  # seconds for requests in flight when stopping
keepalive = 5  # seconds
limit_request_line = 4094  # bytes
max_requests = 2000  # then a fresh process: a belt against leaks
max_requests_jitter = 200
control_socket_disable = True  # nobody needs it, and it would write to the home folder
if Path("/dev/shm").is_dir():
    worker_tmp_dir = "/dev/shm"  # heartbeats on a disk can stall


def post_worker_init(worker: Any) -> None:  # gunicorn has no types
    """Warm every process up by itself, after the fork."""
    worker.wsgi.extensions["inference"].start_warm_up()
