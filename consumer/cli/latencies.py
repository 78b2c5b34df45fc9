"""Batch sizes and how long they take, as the commands read and print them."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from consumer.cli.frame import print_table
from consumer.exits import Exit, FatalError

if TYPE_CHECKING:
    from consumer.models.measure import Latency

_MAX_SIZES = 64
_MAX_ROWS = 65_536


def sizes(text: str, option: str) -> tuple[int, ...]:
    """`1,8,32` -> ascending numbers of rows, none for an empty text. FatalError 64."""
    try:
        rows = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        rows = (0,)
    if len(rows) > _MAX_SIZES or list(rows) != sorted(set(rows)) or not all(1 <= row <= _MAX_ROWS for row in rows):
        raise FatalError(
            Exit.USAGE, f"{option} {text[:100]}: at most {_MAX_SIZES} numbers of rows, 1 to {_MAX_ROWS}, ascending"
        )
    return rows


def documented(latency: "Latency") -> dict[str, Any]:
    """As JSON."""
    return asdict(latency) | {"rows_per_s": latency.rows_per_s}


def print_latencies(latencies: Iterable["Latency"]) -> None:
    """A table on standard output; nothing for nothing."""
    rows = [(str(each.rows), f"{each.ms:.3f}", f"{each.rows_per_s:,.0f}") for each in latencies]
    if rows:
        print_table(("rows", "ms", "rows/s"), rows)
