"""The three loops as the question had them against `loadonce run`: jobs a second on the same topic, broker and model.

    python -m benchmarks.seed_loops [--rounds 3] [--json]

Every contender begins with a backlog; its rate is that of its answers from the first to the last, so that neither
imports nor starting count. Slow ones answer fewer of the same jobs. Every answer is checked.
"""

from typing import Any

from benchmarks.backlog import MODEL, Backlog
from benchmarks.common import parser, report, spread, surroundings, table, tell

LOADONCE = "loadonce"
JOBS = {"load-per-job": 60, "by-name": 60, "by-name-dict": 300, "reload-mtime": 300, LOADONCE: 20_000}


def main() -> None:
    """Measure, check and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="times that each contender has its turn")
    given = arguments.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in JOBS}
    with surroundings() as (kafka, folder):
        backlog = Backlog(kafka, folder, max(JOBS.values()))
        by_name = folder / "by-name" / MODEL
        by_name.mkdir(parents=True)
        model = by_name / "model.keras"
        model.write_bytes((backlog.built / model.name).read_bytes())
        for number in range(given.rounds):
            for name, count in JOBS.items():
                tell(f"round {number + 1}: {name}, {count} jobs")
                rates[name].append(
                    backlog.by_loadonce(count)
                    if name == LOADONCE
                    else backlog.by_module("benchmarks.loops", name, str(model), count=count)
                )
    per_round = {
        name: [ours / other for ours, other in zip(rates[LOADONCE], theirs, strict=True)]
        for name, theirs in rates.items()
        if name != LOADONCE
    }
    result = {
        "jobs_per_second": {name: spread(found) for name, found in rates.items()},
        "loadonce_is_faster_by": {name: spread(found) for name, found in per_round.items()},
        "answers_checked": {name: count * given.rounds for name, count in JOBS.items()},
    }
    report(result, as_json=given.json, text=lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    rows = []
    for name, found in result["jobs_per_second"].items():
        ratio = result["loadonce_is_faster_by"].get(name, {})
        rows.append(
            [name, found["median"], f"{found['least']} to {found['greatest']}", ratio.get("median", ""),
             f"{ratio['least']} to {ratio['greatest']}" if ratio else "", result["answers_checked"][name]]
        )  # fmt: skip
    header = ["loop", "jobs/s", "spread", "loadonce is faster by", "spread", "answers checked"]
    return table(header, rows)


if __name__ == "__main__":
    main()
