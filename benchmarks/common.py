"""What the benchmarks share: their surroundings, figures of a distribution, and how results are printed."""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from consumer.local import LocalKafka


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks take; more can be added."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--json", action="store_true", help="print all that was measured as JSON")
    return made


@contextmanager
def surroundings() -> Iterator[tuple[LocalKafka, Path]]:
    """A broker, and a folder that goes away with it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with LocalKafka() as kafka, tempfile.TemporaryDirectory(prefix="loadonce-bench-") as folder:
        yield kafka, Path(folder)


def tell(text: str) -> None:
    """Say on standard error what is being done."""
    sys.stderr.write(text + "\n")


def distribution(values: Sequence[float]) -> dict[str, float]:
    """Count, median, tail and worst."""
    found = np.percentile(values, [50, 99, 99.9, 100])
    names = ("p50", "p99", "p999", "worst")
    return {"count": len(values)} | {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of what rounds gave."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "greatest": round(max(values), 3),
        "rounds": len(values),
    }


def report(result: Mapping[str, Any], *, as_json: bool, text: Callable[[], str]) -> None:
    """Print the result, with the machine that it is true for."""
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    if as_json:
        sys.stdout.write(json.dumps({"machine": machine, **result}, indent=2) + "\n")
    else:
        sys.stdout.write(f"{machine['cores']} cores, Python {machine['python']}\n{text()}\n")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as what they hold."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
