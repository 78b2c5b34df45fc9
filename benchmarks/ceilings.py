"""`loadonce run` beside what bounds it: a client that only copies records, and the model alone in memory.

    python -m benchmarks.ceilings [--rounds 3] [--jobs 200000] [--json]

All work off the same backlog, one after the other, several rounds in one run; rates are by the answers' own timestamps.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from benchmarks.backlog import Answered, answers, body, publish
from benchmarks.common import parser, report, spread, surroundings, table, tell
from consumer.local import LocalKafka
from tests import models_zoo as zoo
from tests.conftest import Topics, fresh_topics
from tests.replica import options, replica

MODEL = "plus"
BIAS = 1
FEATURES = 4
ECHO, LOADONCE = "kafka-python echo", "loadonce"


def main() -> None:
    """Measure, check and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="times that each contender has its turn")
    arguments.add_argument("--jobs", type=int, default=200_000, help="jobs in the backlog")
    given = arguments.parse_args()
    rates: dict[str, list[float]] = {ECHO: [], LOADONCE: []}
    rows = np.zeros((given.jobs, FEATURES), np.float32)
    rows[:, 0] = np.arange(given.jobs)
    with surroundings() as (kafka, folder):
        built = zoo.put(zoo.dense(bias=BIAS), folder / "built", MODEL, 1, "keras")
        zoo.publish(built, folder / "store", MODEL, 1)
        source = fresh_topics(kafka).jobs
        tell(f"publishing {given.jobs} jobs")
        publish(kafka, source, MODEL, [body(row, "features") for row in rows])
        for number in range(given.rounds):
            for name, found in rates.items():
                tell(f"round {number + 1}: {name}")
                into = fresh_topics(kafka)
                topics = Topics(source, into.predictions, into.dead_letters)
                turn = _echo if name == ECHO else _loadonce
                found.append(turn(kafka, topics, folder, given.jobs).rate)
    ratios = [ours / echo for ours, echo in zip(rates[LOADONCE], rates[ECHO], strict=True)]
    result = {
        "jobs": given.jobs,
        "jobs_per_second": {name: spread(found) for name, found in rates.items()},
        "loadonce_to_echo": spread(ratios),
    }
    report(result, as_json=given.json, text=lambda: _text(result))


def _echo(kafka: LocalKafka, topics: Topics, _folder: Path, count: int) -> Answered:
    command = [sys.executable, "-m", "benchmarks.echo", "kafka-python", kafka.bootstrap_servers]
    started = subprocess.Popen([*command, topics.jobs, topics.predictions, str(count)])  # noqa: S603 - our own module
    try:
        found = answers(kafka, topics.predictions, count)
        started.wait(30)
    finally:
        started.kill()
        started.wait(30)
    return found


def _loadonce(kafka: LocalKafka, topics: Topics, folder: Path, count: int) -> Answered:
    # A group of its own each time: the topic is read from its beginning.
    given = options(kafka, topics, folder / "store", PRELOAD=MODEL, DISK_CACHE=folder / "disk-cache")
    with replica(folder / f"{topics.predictions}.log", **given | {"GROUP_ID": topics.predictions}) as process:
        found = answers(kafka, topics.predictions, count)
        process.stop()
    for number, value in found.values.items():
        scores = np.frombuffer(msgpack.unpackb(value)["outputs"][0]["data"], "<f4")
        if scores.tolist() != [number + BIAS] * 3:
            raise SystemExit(f"job {number}: {scores.tolist()}")
    return found


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
