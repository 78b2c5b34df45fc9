"""Prints what became of each kill point as a table at the end."""

from typing import Any

import pytest

CELL = "kill point"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Delivery and point down, faults across: duplicates of the jobs that were read and not committed."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    faults: list[str] = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, cell in report.user_properties if report.when == "call" else ():
                if name != CELL:
                    continue
                delivery, point, fault, found = cell
                cells.setdefault((delivery, point), {})[fault] = found if outcome == "passed" else "FAILED"
                if fault not in faults:
                    faults.append(fault)
    if not cells:
        return
    write = terminalreporter.write_line
    terminalreporter.section("kill points: every job answered; duplicates / read and not committed at the fault")
    write(" | ".join([f"{'delivery':<14}", f"{'point':<16}", *(f"{fault:<14}" for fault in faults)]))
    for (delivery, point), found in cells.items():
        write(
            " | ".join(
                [f"{delivery:<14}", f"{point:<16}", *(f"{found.get(fault, '-'):<14}" for fault in faults)]
            ).rstrip()
        )


@pytest.fixture
def record_cell(record_property: Any) -> Any:
    """Note what a cell of the table holds."""

    def record(delivery: str, point: str, fault: str, found: str) -> None:
        record_property(CELL, (delivery, point, fault, found))

    return record
