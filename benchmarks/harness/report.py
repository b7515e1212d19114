"""What a benchmark ends with: its figures and promises as JSON, a table for people, and an exit status."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from service.config import usable_cores


class Report:
    """Collects figures and promises as they come."""

    def __init__(self, **settings: Any) -> None:
        """``settings`` are what the figures hold for."""
        self._figures: dict[str, Any] = {"machine": machine(), "settings": settings}
        self._promises: list[dict[str, Any]] = []

    def add(self, name: str, figures: Any) -> None:
        """Keep ``figures`` under ``name``, and show them."""
        self._figures[name] = figures
        print(f"{name}: {json.dumps(figures)}", file=sys.stderr)

    def promise(
        self, text: str, value: float, *, at_least: float = -math.inf, at_most: float = math.inf
    ) -> None:
        """Hold ``value`` against what was promised; nothing holds of a value that is not a number."""
        holds = at_least <= value <= at_most
        self._promises.append({"promise": text, "value": round(value, 4), "holds": holds})

    def finish(self) -> int:
        """Print everything; 1 if a promise does not hold, else 0."""
        print(json.dumps({**self._figures, "promises": self._promises}, indent=1))
        for promise in self._promises:
            print(
                f"{'holds' if promise['holds'] else 'BROKEN':7}{promise['value']:>10g}  {promise['promise']}",
                file=sys.stderr,
            )
        return int(not all(promise["holds"] for promise in self._promises))


def machine() -> dict[str, Any]:
    """What was measured on, and how busy it was when that began."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else "unknown",
        "cores": usable_cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Show rows with the same columns, for people."""
    columns = list(rows[0])
    cells = [columns, *([f"{row[name]}" for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), file=sys.stderr)
