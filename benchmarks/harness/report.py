"""The command line and the output of a benchmark: figures and guarantees as JSON, and an exit status."""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from service.config import usable_cores
from training.cli import command_parser


class Report:
    """Collects figures and guarantees."""

    def __init__(self, **settings: Any) -> None:
        """``settings`` are those that the figures depend on."""
        self._figures: dict[str, Any] = {"machine": _machine(), "settings": settings}
        self._guarantees: list[dict[str, Any]] = []

    def add(self, name: str, figures: Any) -> None:
        """Add figures, and print them to standard error."""
        self._figures[name] = figures
        print(f"{name}: {json.dumps(figures)}", file=sys.stderr)

    def guarantee(
        self, text: str, value: float, *, at_least: float = -math.inf, at_most: float = math.inf
    ) -> None:
        """Check ``value`` against its limits; NaN fails."""
        holds = at_least <= value <= at_most
        self._guarantees.append({"guarantee": text, "value": round(value, 4), "holds": holds})

    def finish(self) -> int:
        """Print everything; returns the exit status, 1 if a guarantee does not hold."""
        print(json.dumps({**self._figures, "guarantees": self._guarantees}, indent=1))
        for each in self._guarantees:
            verdict = "holds" if each["holds"] else "FAILS"
            print(f"{verdict:6}{each['value']:>10g}  {each['guarantee']}", file=sys.stderr)
        return int(not all(each["holds"] for each in self._guarantees))


def benchmark_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for ``python -m benchmarks.NAME``, with the docstring of the module as its description."""
    epilog = "Prints JSON. The exit status is 1 if a guarantee does not hold."
    return command_parser(f"benchmarks.{name}", description, epilog=epilog)


def _machine() -> dict[str, Any]:
    import torch  # takes seconds; not before Ctrl-C is handled

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else "unknown",
        "cores": usable_cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
