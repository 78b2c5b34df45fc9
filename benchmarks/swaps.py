"""A steady stream of jobs while versions are swapped in, some corrupt and some withdrawn, and while nothing happens.

    python -m benchmarks.swaps [--jobs 20000] [--rate 300] [--json]

By turns, a quarter of the jobs each. Every job has to be answered, once, and by a version that was valid when it was
routed: whatever is not so ends the program with 1. A job's wait is from its timestamp to its prediction's.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.common import distribution, parser, report, surroundings, table, tell
from tests import models_zoo as zoo
from tests.conftest import fresh_topics
from tests.replica import options, replica, until
from tests.stream import Stream
from tests.swaps import MODEL, Kind, Swaps, build, problems

PLAN: tuple[Kind, ...] = ("good", "corrupt", "good", "withdrawn", "good")
"""A quarter of the 20 swaps, but for the last."""
LAST: tuple[Kind, ...] = ("good", "corrupt", "corrupt", "good", "good")
TURNS = (PLAN, PLAN, PLAN, LAST)


def main() -> None:
    """Measure, check and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=20_000, help="jobs with swaps, and as many without")
    arguments.add_argument("--rate", type=float, default=300.0, help="jobs a second")
    given = arguments.parse_args()
    turn = given.jobs // len(TURNS)
    waits: dict[str, list[float]] = {"without swaps": [], "with swaps": []}
    with surroundings() as (kafka, folder):
        tell("building the versions")
        store = folder / "store"
        store.mkdir()
        folders = build(folder, 1 + sum(map(len, TURNS)))
        zoo.publish(folders[0], store, MODEL, 1)
        topics = fresh_topics(kafka)
        stream = Stream(kafka, topics, MODEL)
        started = options(kafka, topics, store, PRELOAD=MODEL, DISK_CACHE=folder / "disk-cache")
        with replica(folder / "log", **started) as process:
            process.wait_ready()
            swaps = Swaps(store, process, stream)
            version = 1
            for number, plan in enumerate(TURNS, start=1):
                tell(f"turn {number} of {len(TURNS)}: {turn} jobs without, {turn} with {len(plan)} swaps")
                with _publishing(stream, given.rate, turn) as sent:
                    pass
                waits["without swaps"] += [stream.answers[job].wait_ms for job in sent]
                with _publishing(stream, given.rate, turn) as sent:
                    for kind in plan:
                        version += 1
                        swaps.swap(folders[version - 1], version, kind)
                waits["with swaps"] += [stream.answers[job].wait_ms for job in sent]
            process.stop()
            served = swaps.served
    wrong = problems(stream, served, swaps.marks)
    result = {
        "jobs": stream.published,
        "swaps": {kind: sum(plan.count(kind) for plan in TURNS) for kind in ("good", "corrupt", "withdrawn")},
        "versions_served": len(set(served)),
        "problems": wrong,
        "wait_ms": {name: distribution(found) for name, found in waits.items()},
    }
    report(result, as_json=given.json, text=lambda: _text(result))
    sys.exit(1 if wrong else 0)


@contextmanager
def _publishing(stream: Stream, rate: float, jobs: int) -> Iterator[range]:
    """So many jobs, which go on while inside if need be; all are answered after it."""
    first, inside = stream.published, threading.Event()
    inside.set()
    publisher = stream.publish(rate, lambda count: count >= jobs and not inside.is_set())
    sent = range(first, first + jobs)
    try:
        yield sent
    finally:
        inside.clear()
        until(lambda: (stream.collect(), not publisher.is_alive())[1], jobs / rate + 60, "all jobs to be published")
        until(lambda: stream.collect() == 0, 60, "an answer to every job")


def _text(result: dict[str, object]) -> str:
    waits = result["wait_ms"]
    assert isinstance(waits, dict)
    rows = [(name, *found.values()) for name, found in waits.items()]
    said = table(("wait from job to prediction, ms", "jobs", "p50", "p99", "p999", "worst"), rows)
    problems_found = "; ".join(result["problems"]) if isinstance(result["problems"], list) else ""
    return (
        f"{result['jobs']} jobs, swaps {result['swaps']}, {result['versions_served']} versions served\n{said}\n"
        f"{problems_found or 'every job was answered once, by a version that was valid for it'}"
    )


if __name__ == "__main__":
    main()
