"""`loadonce run` beside what bounds it: a client that only copies records.

    python -m benchmarks.ceilings [--rounds 3] [--jobs 200000] [--json]

Both work off the same backlog by turns, several rounds in one run; rates are by the answers' own timestamps.
"""

from typing import Any

from benchmarks.backlog import Backlog
from benchmarks.common import parser, report, spread, surroundings, table, tell

ECHO, LOADONCE = "kafka-python echo", "loadonce"


def main() -> None:
    """Measure, check and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="times that each contender has its turn")
    arguments.add_argument("--jobs", type=int, default=200_000, help="jobs in the backlog")
    given = arguments.parse_args()
    rates: dict[str, list[float]] = {ECHO: [], LOADONCE: []}
    with surroundings() as (kafka, folder):
        tell(f"publishing {given.jobs} jobs")
        backlog = Backlog(kafka, folder, given.jobs)
        for number in range(given.rounds):
            tell(f"round {number + 1}: {ECHO}")
            rates[ECHO].append(backlog.by_module("benchmarks.echo", count=given.jobs, echo=True))
            tell(f"round {number + 1}: {LOADONCE}")
            rates[LOADONCE].append(backlog.by_loadonce(given.jobs))
    ratios = [ours / echo for ours, echo in zip(rates[LOADONCE], rates[ECHO], strict=True)]
    result = {
        "jobs": given.jobs,
        "jobs_per_second": {name: spread(found) for name, found in rates.items()},
        "loadonce_to_echo": spread(ratios),
    }
    report(result, as_json=given.json, text=lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    rows = [
        [name, found["median"], f"{found['least']} to {found['greatest']}"]
        for name, found in result["jobs_per_second"].items()
    ]
    ratio = result["loadonce_to_echo"]
    said = table(["contender", "jobs/s", "spread"], rows)
    return f"{said}\nloadonce to echo: {ratio['median']} ({ratio['least']} to {ratio['greatest']})"


if __name__ == "__main__":
    main()
