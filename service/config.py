"""What the environment decides about the service: every ``CAPTION_*`` variable is a field here.

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
_KEY = re.compile(r"[!-~]+")  # what a header can carry as one word
_STORAGES = ("memory://", "redis://", "rediss://", "redis+unix://")
_CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")  # microseconds of computing, and in how many of them
_MOST_PIXELS = 178_956_970  # Pillow refuses larger pictures by itself, whatever is set here


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """The settings of the service. ``CAPTION_MAX_BYTES`` in the environment sets ``max_bytes``, and so on."""

    checkpoint: str = "checkpoints/default"  # folder of the captioner that is served
    device: str = "cpu"  # as torch names it
    bind: str = "127.0.0.1:8000"  # address and port; the default is not reachable from other computers
    workers: int = 0  # processes, each with one torch thread; 0 is one a core, or one alone on a GPU
    threads: int = 32  # a process; most only wait for slow clients, one at a time captions
    queue: int = 8  # requests that may wait in a process; the next are told to come again
    max_bytes: int = 20_000_000  # of a whole request
    max_pixels: int = 50_000_000  # of a photo
    min_side: int = 16  # pixels
    max_side: int = 20_000  # pixels
    api_key: str = field(default="", repr=False)  # asked of those who want captions; empty: of nobody
    rate_limit: str = ""  # of requests for captions, a client, as in 60/minute; empty: none
    rate_limit_storage: str = field(default="memory://", repr=False)  # where they are counted
    cors_origins: str = ""  # pages that may ask from a browser, separated by commas, or *; empty: none
    trusted_hosts: str = ""  # names the service answers to, separated by commas; empty: any
    trusted_proxies: int = 0  # how many in front of the service say truly who asks

    def __post_init__(self) -> None:
        """Refuse values no service can run with.

        Raises:
            ConfigError: a sentence for every mistake, naming the variable.
        """
        values = vars(self)
        _refuse([*_wrong_numbers(values), *_wrong_texts(values)])
        _refuse(list(_contradictions(values)))

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> ServiceConfig:
        """The settings in ``environment``, that of the process if None; defaults where it is silent.

        Raises:
            ConfigError: a sentence for every variable that is unknown or has a value that cannot be.
        """
        environment = os.environ if environment is None else environment
        defaults = {setting.name: setting.default for setting in fields(cls)}
        values: dict[str, Any] = dict(defaults)
        mistakes = []
        for variable in sorted(name for name in environment if name.startswith(PREFIX)):
            text, name = environment[variable], variable.removeprefix(PREFIX).lower()
            if name not in defaults or variable != variable.upper():
                mistakes.append(_unknown(variable, defaults))
            elif isinstance(defaults[name], str):
                values[name] = text.strip()
            elif _WHOLE_NUMBER.fullmatch(text.strip()):
                values[name] = int(text)
            else:
                mistakes.append(f"{variable} is {text!r}; it must be a whole number.")
        _refuse([*mistakes, *_wrong_numbers(values), *_wrong_texts(values)])
        return cls(**values)


def usable_cores() -> int:
    """Cores this process may fill: those it may run on, and no more than the share of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_SHARE.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no share set ("max")
        return cores


def listed(text: str) -> tuple[str, ...]:
    """The parts of a setting that has several, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _unknown(variable: str, known: Mapping[str, Any]) -> str:
    nearest = get_close_matches(variable.upper(), [_variable(name) for name in known], n=1, cutoff=0.0)
    return f"{variable} is not a setting of the service; the nearest that is one is {nearest[0]}."


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _wrong_numbers(values: Mapping[str, Any]) -> Iterator[str]:
    least = {"workers": 0, "queue": 0, "trusted_proxies": 0, "threads": 1}
    least |= {"max_bytes": 1, "max_pixels": 1, "min_side": 1, "max_side": 1}
    for name, low in least.items():
        if values[name] < low:
            yield f"{_variable(name)} is {values[name]}; it must be at least {low}."
    if values["max_pixels"] > _MOST_PIXELS:
        yield f"CAPTION_MAX_PIXELS is {values['max_pixels']}; it must be at most {_MOST_PIXELS}."


def _wrong_texts(values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("checkpoint", "device"):
        if not values[name]:
            yield f"{_variable(name)} is empty; leave it out for the default."
    for name, (is_right, right) in _TEXTS.items():
        if not is_right(values[name]):
            given = "" if name in _SECRETS else f" {values[name]!r};"
            yield f"{_variable(name)} is{given or ' not as it must be;'} it must be {right}."


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    if values["min_side"] > values["max_side"]:
        yield (
            f"CAPTION_MIN_SIDE is {values['min_side']} and CAPTION_MAX_SIDE is {values['max_side']}; "
            "the first must not be the larger."
        )
    if values["threads"] < values["queue"] + 2:
        # One captions, those of the queue wait, and one must be left to tell the next that all is taken.
        yield (
            f"CAPTION_THREADS is {values['threads']} and CAPTION_QUEUE is {values['queue']}; "
            "there must be at least 2 more threads than may wait."
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


_SECRETS = ("api_key", "rate_limit_storage")  # never shown; the latter may hold a password
_TEXTS: dict[str, tuple[Callable[[str], bool], str]] = {
    "bind": (_is_bind, "an address and a port, as in 127.0.0.1:8000 or [::1]:8000, or unix:/path"),
    "api_key": (
        lambda text: not text or _KEY.fullmatch(text) is not None,
        "of letters, digits and signs without spaces, or empty for none",
    ),
    "rate_limit": (_is_rate, "a number of requests and a time, as in 60/minute, or empty for none"),
    "rate_limit_storage": (
        lambda text: text.startswith(_STORAGES),
        "memory://, or the address of a Redis, as in redis://localhost:6379",
    ),
    "cors_origins": (
        _all_match(_ORIGIN, "*"),
        "origins separated by commas, as in https://photos.example, or *, or empty for none",
    ),
    "trusted_hosts": (
        _all_match(_HOST),
        "host names separated by commas, as in photos.example, or empty for any",
    ),
}
