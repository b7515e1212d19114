"""Who may ask, from where, and how often: API key, rate limit, origins, host names, proxies. All of it is off
unless it is configured.

Every check comes before the body of a request is read. Health, metrics and the page are open to all.
"""

from __future__ import annotations

import secrets
from functools import partial
from ipaddress import IPv6Address, ip_address

from flask import Flask, Response, request
from flask_limiter import ApplicationLimit, HeaderNames, Limiter
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import BadRequest, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from service.config import ServiceConfig, listed
from service.web.context import asks_for_captions

# Probes and scrapers come by the address of a container, which no list of names can hold.
_ASKED_BY_ADDRESS = ("/healthz", "/readyz", "/metrics")
# Seconds for Redis to answer; then each process counts by itself.
_REDIS_WAITS = {"socket_connect_timeout": 1, "socket_timeout": 1}
_IPV6_SHIFT = 64  # bits: a client has a whole network of addresses, and would pass any limit with them
_PREFLIGHT_SECONDS = "600"  # for which a browser remembers the answer
_SECONDS_LEFT = "X-Limiter-Seconds-Left"  # never leaves this file


def register_access(app: Flask, config: ServiceConfig) -> None:
    """Let only those into ``app`` that ``config`` lets in."""
    if count := config.trusted_proxies:
        # The name of the host is not taken from them: many pass on what the client claims.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count)  # type: ignore[method-assign]
    if hosts := listed(config.trusted_hosts):
        app.before_request(partial(_check_host, hosts))
    if origins := listed(config.cors_origins.lower()):  # as browsers send them
        app.before_request(partial(_answer_preflight, origins))
        app.after_request(partial(_allow_origin, origins))
    if config.rate_limit:
        _register_limit(app, config)
    if config.api_key:
        app.before_request(partial(_check_key, config.api_key.encode()))


def _check_host(trusted: tuple[str, ...]) -> None:
    route = request.url_rule.rule if request.url_rule else None
    if route not in _ASKED_BY_ADDRESS and not host_is_trusted(request.host, trusted):
        raise BadRequest("The service does not answer to this host name.")


def _check_key(key: bytes) -> None:
    if not asks_for_captions():
        return
    # Not request.authorization, which takes a key with an equals sign for something else.
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    sent = token.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
    if not secrets.compare_digest(sent.encode(), key):
        raise Unauthorized(
            "Send the API key of this service as Authorization: Bearer KEY, or as X-API-Key: KEY.",
            www_authenticate=WWWAuthenticate("bearer", {"realm": "captions"}),
        )


# Pages of other origins


def _is_allowed(origins: tuple[str, ...]) -> bool:
    return "*" in origins or request.headers.get("Origin", "") in origins


def _answer_preflight(origins: tuple[str, ...]) -> Response | None:
    """What a browser is told that asks whether it may ask."""
    asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not asks or not _is_allowed(origins):
        return None
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = "GET, POST"
    answer.headers["Access-Control-Allow-Headers"] = "Authorization, X-API-Key, X-Request-Id"
    answer.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
    return answer


def _allow_origin(origins: tuple[str, ...], response: Response) -> Response:
    """Let pages of the configured origins read the answer; with a cookie or a password they may not."""
    if "*" not in origins:
        response.vary.add("Origin")
    if "Origin" in request.headers and _is_allowed(origins):
        allowed = "*" if "*" in origins else request.headers["Origin"]
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = (
            "X-Request-Id, Server-Timing, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
        )
    return response


# How often


def _register_limit(app: Flask, config: ServiceConfig) -> None:
    app.after_request(_tell_seconds_left)  # runs after that of the limiter, which is added later
    in_memory = config.rate_limit_storage.startswith("memory")
    limit = ApplicationLimit(
        config.rate_limit,
        exempt_when=lambda: not asks_for_captions(),
        error_message=f"The limit for a client is {config.rate_limit}; Retry-After says when to go on.",
    )
    Limiter(
        _client,
        app=app,
        application_limits=[limit],
        storage_uri=config.rate_limit_storage,
        storage_options={} if in_memory else dict(_REDIS_WAITS),
        swallow_errors=True,  # who cannot be counted is let in
        in_memory_fallback_enabled=True,
        headers_enabled=True,
        header_name_mapping={
            HeaderNames.LIMIT: "RateLimit-Limit",
            HeaderNames.REMAINING: "RateLimit-Remaining",
            HeaderNames.RESET: "RateLimit-Reset",
            HeaderNames.RETRY_AFTER: _SECONDS_LEFT,
        },
    )


def _client() -> str:
    """What the requests are counted by: the address, or the network of an IPv6 address."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a socket of the file system has no address
        return "local"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or int(address) >> _IPV6_SHIFT)
    return str(address)


def _tell_seconds_left(response: Response) -> Response:
    """Seconds instead of the time of day that the library tells, and Retry-After only where it is refused."""
    seconds = response.headers.pop(_SECONDS_LEFT, None)
    if seconds is not None:
        response.headers["RateLimit-Reset"] = seconds
        if response.status_code == 429:
            response.headers["Retry-After"] = seconds
    return response
