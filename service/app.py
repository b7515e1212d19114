"""The web application: a captioner, the routes, the errors. ``gunicorn "service.app:create_app()"``."""

from __future__ import annotations

import sys

import torch
from flask import Flask

from model import Captioner, CheckpointError, ImageLimits, OptionsError
from service.config import ServiceConfig
from service.errors import ConfigError
from service.web.access import register_access
from service.web.captions import captioning, information
from service.web.headers import register_headers
from service.web.health import health
from service.web.logs import register_logs
from service.web.max_api import max_predictions, max_routes
from service.web.metrics import register_metrics
from service.web.openapi import register_specification
from service.web.page import page
from service.web.problems import register_errors
from service.web.request_parser import MAX_FIELD_BYTES, MAX_FORM_PARTS, InMemoryRequest
from service.worker import Inference

# gunicorn takes this status of a worker as "do not start it again"; any other would loop for ever.
CANNOT_START = 3


def create_app(config: ServiceConfig | None = None, captioner: Captioner | None = None) -> Flask:
    """The application. Without ``config`` the environment decides, without ``captioner`` the checkpoint.

    Nothing runs here on more than one torch thread, so that gunicorn may fork afterwards: threads that
    torch has started do not survive a fork. What cannot start says so in one sentence and exits.
    """
    torch.set_num_threads(1)  # processes fill the cores; more threads than cores stall one another
    try:
        config = config or ServiceConfig.from_env()
        captioner = captioner or Captioner.load(config.checkpoint, config.device)
    except (ConfigError, CheckpointError, OptionsError) as error:
        print(f"The captioning service cannot start. {error}", file=sys.stderr)
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
    app.extensions["inference"] = Inference(captioner, limits, config.queue)
    register_headers(app)
    register_errors(app)
    register_logs(app)
    register_metrics(app)
    register_access(app, config)
    routes = (captioning, information, max_predictions, max_routes, health)
    register_specification(app, *routes, asks_for_key=bool(config.api_key))
    app.register_blueprint(page)
    return app
