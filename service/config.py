"""The settings of the service: every ``CAPTION_*`` environment variable is a field here.

This file knows nothing of Flask, gunicorn or networks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import limits

from service.errors import ConfigError

PREFIX = "CAPTION_"

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_ADDRESS_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})", re.ASCII)
_ORIGIN = re.compile(r"https?://[^\s/,*@?#]+", re.IGNORECASE)
_HOST = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_KEY = re.compile(r"[!-~]+")  # one word of a header
_STORAGES = ("memory://", "redis://", "rediss://", "redis+unix://")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # quota and period in microseconds
_MAX_PIXELS = 178_956_970  # Pillow itself rejects larger images


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """The settings of the service; ``CAPTION_MAX_BYTES`` sets ``max_bytes``, and so on."""

    checkpoint: str = "checkpoints/default"  # folder
    device: str = "cpu"  # as torch names it
    bind: str = "127.0.0.1:8000"  # address and port; by default not reachable from other computers
    workers: int = 0  # processes, each with one torch thread; 0: one per core, or a single one on a GPU
    threads: int = 32  # per process; one captions, the others wait for clients
    queue: int = 8  # requests that may wait in a process; further ones get a 503
    max_bytes: int = 20_000_000  # of a request
    max_pixels: int = 50_000_000  # of a photo
    min_side: int = 16  # pixels
    max_side: int = 20_000  # pixels
    api_key: str = field(default="", repr=False)  # required for captions; empty: none
    rate_limit: str = ""  # of caption requests per client, such as 60/minute; empty: none
    rate_limit_storage: str = field(default="memory://", repr=False)  # where requests are counted
    cors_origins: str = ""  # allowed by CORS, comma-separated, or *; empty: none
    trusted_hosts: str = ""  # host names, comma-separated; empty: any
    trusted_proxies: int = 0  # number of proxies whose X-Forwarded-For is trusted

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            ConfigError: one line per invalid setting, naming its variable.
        """
        values = vars(self)
        _raise_if([*_wrong_numbers(values), *_wrong_texts(values)])
        _raise_if(list(_contradictions(values)))

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> ServiceConfig:
        """The settings of ``environment``, by default that of the process.

        Raises:
            ConfigError: one line per unknown variable or invalid value.
        """
        environment = os.environ if environment is None else environment
        defaults = {setting.name: setting.default for setting in fields(cls)}
        values: dict[str, Any] = dict(defaults)
        errors = []
        for variable in sorted(name for name in environment if name.startswith(PREFIX)):
            text, name = environment[variable], variable.removeprefix(PREFIX).lower()
            if name not in defaults or variable != variable.upper():
                errors.append(_unknown(variable, defaults))
            elif isinstance(defaults[name], str):
                values[name] = text.strip()
            elif _WHOLE_NUMBER.fullmatch(text.strip()):
                values[name] = int(text)
            else:
                errors.append(f"{variable} is {text!r}; it must be a whole number.")
        _raise_if([*errors, *_wrong_numbers(values), *_wrong_texts(values)])
        return cls(**values)


def usable_cores() -> int:
    """The number of cores this process may use, limited by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no quota ("max")
        return cores


def listed(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated setting."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _raise_if(errors: list[str]) -> None:
    if errors:
        raise ConfigError("\n".join(errors))


def _unknown(variable: str, known: Mapping[str, Any]) -> str:
    nearest = get_close_matches(variable.upper(), [_variable(name) for name in known], n=1, cutoff=0.0)
    return f"{variable} is not a setting; did you mean {nearest[0]}?"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _wrong_numbers(values: Mapping[str, Any]) -> Iterator[str]:
    minimums = {"workers": 0, "queue": 0, "trusted_proxies": 0, "threads": 1}
    minimums |= {"max_bytes": 1, "max_pixels": 1, "min_side": 1, "max_side": 1}
    for name, low in minimums.items():
        if values[name] < low:
            yield f"{_variable(name)} is {values[name]}; it must be at least {low}."
    if values["max_pixels"] > _MAX_PIXELS:
        yield f"CAPTION_MAX_PIXELS is {values['max_pixels']}; it must be at most {_MAX_PIXELS}."


def _wrong_texts(values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("checkpoint", "device"):
        if not values[name]:
            yield f"{_variable(name)} is empty; unset it for the default."
    for name, (is_valid, valid) in _TEXTS.items():
        if not is_valid(values[name]):
            value = "invalid" if name in _SECRETS else repr(values[name])
            yield f"{_variable(name)} is {value}; it must be {valid}."


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    if values["min_side"] > values["max_side"]:
        yield (
            f"CAPTION_MIN_SIDE is {values['min_side']} and CAPTION_MAX_SIDE is {values['max_side']}; "
            "the minimum must not exceed the maximum."
        )
    if values["threads"] < values["queue"] + 2:
        # One captions, those in the queue wait, and one must be left to reject the next.
        yield (
            f"CAPTION_THREADS is {values['threads']} and CAPTION_QUEUE is {values['queue']}; "
            "CAPTION_THREADS must be at least CAPTION_QUEUE + 2."
        )


def _is_bind(text: str) -> bool:
    found = _ADDRESS_AND_PORT.fullmatch(text)
    return text.startswith("unix:/") or (found is not None and int(found[2]) <= 65535)


def _is_rate(text: str) -> bool:
    try:
        return not text or all(limit.amount > 0 for limit in limits.parse_many(text))
    except ValueError:
        return False


def _all_match(form: re.Pattern[str], *others: str) -> Callable[[str], bool]:
    return lambda text: all(part in others or form.fullmatch(part) is not None for part in listed(text))


_SECRETS = ("api_key", "rate_limit_storage")  # never shown; the latter may contain a password
_TEXTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "bind": (_is_bind, "an address and a port, such as 127.0.0.1:8000 or [::1]:8000, or unix:/path"),
    "api_key": (
        lambda text: not text or _KEY.fullmatch(text) is not None,
        "printable ASCII without spaces, or empty for none",
    ),
    "rate_limit": (_is_rate, "a rate such as 60/minute, or empty for none"),
    "rate_limit_storage": (
        lambda text: text.startswith(_STORAGES),
        "memory://, or the address of a Redis server, such as redis://localhost:6379",
    ),
    "cors_origins": (
        _all_match(_ORIGIN, "*"),
        "comma-separated origins, such as https://photos.example, or *, or empty for none",
    ),
    "trusted_hosts": (
        _all_match(_HOST),
        "comma-separated host names, such as photos.example, or empty for any",
    ),
}
