"""The settings of the service: every ``CAPTION_*`` environment variable is a field here.

This file knows nothing of Flask, gunicorn or networks.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import limits

from service.errors import ConfigError

PREFIX = "CAPTION_"

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_ADDRESS_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})", re.ASCII)
_ORIGIN = re.compile(r"https?://[^\s/,*@?#]+", re.IGNORECASE)
_HOST = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_KEY = re.compile(r"[!-~]*")  # at most one word of a header
_STORAGES = ("memory://", "redis://", "rediss://", "redis+unix://")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # quota and period in microseconds
_MAX_PIXELS = 178_956_970  # Pillow itself rejects larger images


def listed(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated setting."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_bind(text: str) -> bool:
    found = _ADDRESS_AND_PORT.fullmatch(text)
    return text.startswith("unix:/") or (found is not None and int(found[2]) <= 65535)


def _is_rate(text: str) -> bool:
    try:
        return not text or all(limit.amount > 0 for limit in limits.parse_many(text))
    except ValueError:
        return False


def _number(default: int, *, low: int = 0, high: int | None = None) -> Any:
    valid = range(low, 10**15 if high is None else high + 1)
    right = f"at least {low}" if high is None else f"from {low} to {high}"
    return field(default=default, metadata={"is_valid": valid.__contains__, "right": right})


def _text(default: str, right: str, is_valid: Callable[[str], object], *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"is_valid": is_valid, "right": right})


def _list_of(form: re.Pattern[str], *others: str) -> Callable[[str], bool]:
    return lambda text: all(part in others or form.fullmatch(part) is not None for part in listed(text))


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """The settings of the service; ``CAPTION_MAX_BYTES`` sets ``max_bytes``, and so on."""

    checkpoint: str = _text("checkpoints/default", "a folder", bool)
    device: str = _text("cpu", "a torch device, such as cpu or cuda", bool)
    # By default not reachable from other computers.
    bind: str = _text(
        "127.0.0.1:8000",
        "an address and a port, such as 127.0.0.1:8000 or [::1]:8000, or unix:/path",
        _is_bind,
    )
    # Processes, each with one torch thread; 0: one per core, or a single one on a GPU.
    workers: int = _number(0)
    threads: int = _number(32, low=1)  # per process; one captions, the others wait for clients
    queue: int = _number(8)  # requests that may wait in a process; further ones get a 503
    max_bytes: int = _number(20_000_000, low=1)  # of a request
    max_pixels: int = _number(50_000_000, low=1, high=_MAX_PIXELS)  # of a photo
    min_side: int = _number(16, low=1)  # pixels
    max_side: int = _number(20_000, low=1)  # pixels
    # Required for captions; empty: none.
    api_key: str = _text("", "printable ASCII without spaces, or empty for none", _KEY.fullmatch, secret=True)
    # Of caption requests per client; empty: none.
    rate_limit: str = _text("", "a rate such as 60/minute, or empty for none", _is_rate)
    # Where requests are counted; may contain a password.
    rate_limit_storage: str = _text(
        "memory://",
        "memory://, or the address of a Redis server, such as redis://localhost:6379",
        lambda text: text.startswith(_STORAGES),
        secret=True,
    )
    cors_origins: str = _text(
        "",
        "comma-separated origins, such as https://photos.example, or *, or empty for none",
        _list_of(_ORIGIN, "*"),
    )
    trusted_hosts: str = _text(
        "", "comma-separated host names, such as photos.example, or empty for any", _list_of(_HOST)
    )
    trusted_proxies: int = _number(0)  # proxies whose X-Forwarded-For is trusted

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            ConfigError: one line per invalid setting, naming its variable.
        """
        _raise_if(list(_invalid(vars(self))))
        _raise_if(list(_contradictions(self)))

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of ``environment``, by default that of the process.

        Raises:
            ConfigError: one line per unknown variable or invalid value.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {setting.name: setting.default for setting in fields(cls)}
        errors = []
        for variable in sorted(name for name in environment if name.startswith(PREFIX)):
            text, name = environment[variable].strip(), variable.removeprefix(PREFIX).lower()
            if name not in values or variable != variable.upper():
                errors.append(_unknown(variable, values))
            elif isinstance(values[name], str):
                values[name] = text
            elif _WHOLE_NUMBER.fullmatch(text):
                values[name] = int(text)
            else:
                errors.append(f"{variable} is {text!r}; it must be a whole number.")
        _raise_if([*errors, *_invalid(values)])
        return cls(**values)

    @property
    def processes(self) -> int:
        """The number of processes to run."""
        return self.workers or (usable_cores() if self.device == "cpu" else 1)


def usable_cores() -> int:
    """The number of cores this process may use, limited by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no quota ("max")
        return cores


def _raise_if(errors: list[str]) -> None:
    if errors:
        raise ConfigError("\n".join(errors))


def _unknown(variable: str, known: Mapping[str, Any]) -> str:
    nearest = get_close_matches(variable.upper(), [_variable(name) for name in known], n=1, cutoff=0.0)
    return f"{variable} is not a setting; did you mean {nearest[0]}?"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _invalid(values: Mapping[str, Any]) -> Iterator[str]:
    for setting in fields(ServiceConfig):
        value = values[setting.name]
        if not setting.metadata["is_valid"](value):
            given = repr(value) if setting.repr else "invalid"
            yield f"{_variable(setting.name)} is {given}; it must be {setting.metadata['right']}."


def _contradictions(config: ServiceConfig) -> Iterator[str]:
    if config.min_side > config.max_side:
        yield (
            f"CAPTION_MIN_SIDE is {config.min_side} and CAPTION_MAX_SIDE is {config.max_side}; "
            "the minimum must not exceed the maximum."
        )
    if config.threads < config.queue + 2:
        # One captions, those in the queue wait, and one must be left to reject the next.
        yield (
            f"CAPTION_THREADS is {config.threads} and CAPTION_QUEUE is {config.queue}; "
            "CAPTION_THREADS must be at least CAPTION_QUEUE + 2."
        )
