"""The rate limit of a client, over all requests for captions. Off unless configured."""

from ipaddress import IPv6Address, ip_address

from flask import Flask, Response, request
from flask_limiter import ApplicationLimit, HeaderNames, Limiter

from service.config import ServiceConfig
from service.web.context import is_caption_request

# Seconds that Redis has to respond; after that each process counts by itself.
_REDIS_TIMEOUTS = {"socket_connect_timeout": 1, "socket_timeout": 1}
_IPV6_SHIFT = 64  # bits: a client has a whole network of addresses, and could evade any limit with them
_SECONDS_LEFT = "X-Limiter-Seconds-Left"  # internal; never sent


def register_rate_limit(app: Flask, config: ServiceConfig) -> None:
    """Limit the requests of each client to ``app``. Register it before the key, so that guesses count."""
    if not config.rate_limit:
        return
    app.after_request(_set_headers)  # runs after that of the limiter, which is added later
    in_memory = config.rate_limit_storage.startswith("memory")
    limit = ApplicationLimit(
        config.rate_limit,
        exempt_when=lambda: not is_caption_request(),
        error_message=f"Rate limit exceeded: {config.rate_limit} per client; see Retry-After.",
    )
    Limiter(
        _client,
        app=app,
        application_limits=[limit],
        storage_uri=config.rate_limit_storage,
        storage_options={} if in_memory else dict(_REDIS_TIMEOUTS),
        swallow_errors=True,  # a request that cannot be counted is let through
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
    """What identifies a client: its address, or the /64 network of an IPv6 address."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:  # a Unix socket has no address
        return "local"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or int(address) >> _IPV6_SHIFT)
    return str(address)


def _set_headers(response: Response) -> Response:
    """Put seconds in place of the library's time of day, and Retry-After on a 429 only."""
    seconds = response.headers.pop(_SECONDS_LEFT, None)
    if seconds is not None:
        response.headers["RateLimit-Reset"] = seconds
        if response.status_code == 429:
            response.headers["Retry-After"] = seconds
    return response
