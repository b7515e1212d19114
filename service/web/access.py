"""Access control: API key, host names and trusted proxies, each off unless it is configured.

Everything is checked before the body of a request is read. Only requests for captions need the key.
"""

import secrets
from functools import partial

from flask import Flask, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from service.config import ServiceConfig, listed
from service.web.context import is_caption_request

# Probes and scrapers use the address of a container, which no list of names can hold.
_ANY_HOST = ("/healthz", "/readyz", "/metrics")


def register_access(app: Flask, config: ServiceConfig) -> None:
    """Restrict access to ``app`` as ``config`` says."""
    if count := config.trusted_proxies:
        # X-Forwarded-Host is not trusted: many proxies pass on what the client sent.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count)  # type: ignore[method-assign]
    if hosts := listed(config.trusted_hosts):
        app.before_request(partial(_check_host, hosts))
    if config.api_key:
        app.before_request(partial(_check_key, config.api_key.encode()))


def _check_host(trusted: tuple[str, ...]) -> None:
    route = request.url_rule.rule if request.url_rule else None
    if route not in _ANY_HOST and not host_is_trusted(request.host, trusted):
        raise BadRequest("Host not allowed.")


def _check_key(key: bytes) -> None:
    if not is_caption_request():
        return
    # Not request.authorization, which misreads keys with an equals sign.
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    sent = token.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
    if not secrets.compare_digest(sent.encode(), key):
        raise Unauthorized(
            "Missing or invalid API key; send Authorization: Bearer KEY, or X-API-Key: KEY.",
            www_authenticate=WWWAuthenticate("bearer", {"realm": "captions"}),
        )
