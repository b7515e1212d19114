"""The WSGI application: ``gunicorn "service.app:create_app()"``."""

import sys

import torch
from flask import Flask

from model import Captioner, CheckpointError, ImageLimits, OptionsError
from service.config import ServiceConfig
from service.errors import ConfigError
from service.web.access import register_access
from service.web.captions import captioning, model_card
from service.web.context import check_admission
from service.web.cors import register_cors
from service.web.headers import register_headers
from service.web.health import health
from service.web.max_api import max_routes
from service.web.metrics import register_metrics
from service.web.openapi import register_api
from service.web.page import page
from service.web.problems import register_problems
from service.web.rate_limit import register_rate_limit
from service.web.request_parser import MAX_FIELD_BYTES, MAX_FORM_PARTS, InMemoryRequest
from service.worker import Worker

CANNOT_START = 3  # exit status with which gunicorn gives up; it would restart the worker for ever on others


def create_app(config: ServiceConfig | None = None, captioner: Captioner | None = None) -> Flask:
    """The application. Without ``config`` the environment is read, without ``captioner`` the checkpoint.

    Nothing runs here on more than one torch thread, so that gunicorn may fork afterwards: threads started by
    torch do not survive a fork. On invalid settings or checkpoints, prints why and exits.
    """
    torch.set_num_threads(1)  # there is a process per core; more threads than cores stall one another
    try:
        config = config or ServiceConfig.from_env()
        captioner = captioner or Captioner.load(config.checkpoint, config.device)
    except (ConfigError, CheckpointError, OptionsError) as error:
        print(f"The service cannot start. {error}", file=sys.stderr)
        sys.exit(CANNOT_START)
    app = Flask(__name__, static_folder="web/static", template_folder="web/templates")
    app.request_class = InMemoryRequest
    app.config.update(
        MAX_CONTENT_LENGTH=config.max_bytes,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
        MAX_FORM_MEMORY_SIZE=MAX_FIELD_BYTES,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider; keep the record's order
    limits = ImageLimits(max_pixels=config.max_pixels, min_side=config.min_side, max_side=config.max_side)
    app.extensions["worker"] = Worker(captioner, limits, config.queue)
    # In this order: each may reject a request before the next one sees it.
    register_headers(app)
    register_problems(app)
    register_metrics(app)
    register_cors(app, config)
    register_rate_limit(app, config)
    register_access(app, config)
    app.before_request(check_admission)
    register_api(app, captioning, model_card, max_routes, health, needs_key=bool(config.api_key))
    app.register_blueprint(page)
    return app
