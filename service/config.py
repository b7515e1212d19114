"""What the environment decides about the service: every ``CAPTION_*`` variable is a field here.

This file knows nothing of Flask, gunicorn or networks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "CAPTION_"


class ConfigError(Exception):
    """A setting of the service that cannot be; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """The settings of the service. ``CAPTION_MAX_BYTES`` in the environment sets ``max_bytes``, and so on."""

    checkpoint: str = "checkpoints/default"  # folder of the captioner that is served
    device: str = "cpu"  # as torch names it
    bind: str = "127.0.0.1:8000"  # address and port; the default is not reachable from other computers
    workers: int = 0  # processes, each with one torch thread; 0 is one a core, or one alone on a GPU
    threads: int = 32  # a process; most only wait for slow clients, one at a time captions
    max_bytes: int = 20_000_000  # of a whole request
    max_pixels: int = 50_000_000  # of a photograph

    def __post_init__(self) -> None:
        """Refuse values no service can run with.

        Raises:
            ConfigError: one sentence naming the variable.
        """
        for name in ("checkpoint", "device", "bind"):
            if not getattr(self, name):
                raise ConfigError(f"{PREFIX}{name.upper()} is empty; leave it out for the default.")
        if self.workers < 0:
            raise ConfigError(f"{PREFIX}WORKERS is {self.workers}; it must not be negative.")
        for name in ("threads", "max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{PREFIX}{name.upper()} is {getattr(self, name)}; it must be at least 1.")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> ServiceConfig:
        """The settings in the environment; defaults where it is silent.

        Raises:
            ConfigError: a variable has a value that cannot be.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = PREFIX + field.name.upper()
            if variable in environment:
                text = environment[variable]
                values[field.name] = _whole_number(variable, text) if isinstance(field.default, int) else text
        return cls(**values)


def _whole_number(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}; it must be a whole number.") from None
