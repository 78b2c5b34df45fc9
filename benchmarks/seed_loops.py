"""The three loops as the question had them against `loadonce run`: jobs a second on the same topic, broker and model.

    python -m benchmarks.seed_loops [--rounds 3] [--json]

Every contender begins with a backlog; its rate is that of its answers from the first to the last, so that neither
imports nor starting count. Slow ones answer fewer of the same jobs. Every answer is checked.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.common import parser, report, spread, surroundings, table, tell
from consumer.local import LocalKafka
from tests import models_zoo as zoo
from tests.conftest import PARTITIONS, Topics, fresh_topics
from tests.replica import options, replica

MODEL = "plus"
BIAS = 1
LOADONCE = "loadonce"
JOBS = {"load-per-job": 60, "by-name": 60, "by-name-dict": 300, "reload-mtime": 300, LOADONCE: 20_000}
LIMIT_S = 180.0


def main() -> None:
    """Measure, check and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3, help="times that each contender has its turn")
    given = arguments.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in JOBS}
    with surroundings() as (kafka, folder):
        built = zoo.put(zoo.dense(bias=BIAS), folder / "built", MODEL, 1, "keras")
        zoo.publish(built, folder / "store", MODEL, 1)
        by_name = folder / "by-name" / MODEL
        by_name.mkdir(parents=True)
        (by_name / "model.keras").write_bytes((built / "model.keras").read_bytes())
        source = fresh_topics(kafka).jobs
        _publish(kafka, source, max(JOBS.values()))
        for number in range(given.rounds):
            for name, count in JOBS.items():
                tell(f"round {number + 1}: {name}, {count} jobs")
                topics = Topics(source, *_outcomes(kafka))
                rates[name].append(_turn(kafka, name, topics, folder, count))
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


def _outcomes(kafka: LocalKafka) -> tuple[str, str]:
    topics = fresh_topics(kafka)
    return topics.predictions, topics.dead_letters


def _turn(kafka: LocalKafka, name: str, topics: Topics, folder: Path, count: int) -> float:
    if name == LOADONCE:
        # A group of its own each time: the topic is read from its beginning.
        given = options(kafka, topics, folder / "store", PRELOAD=MODEL) | {"GROUP_ID": topics.predictions}
        with replica(folder / f"{topics.predictions}.log", **given) as process:
            rate = _rate(kafka, topics.predictions, count)
            process.stop()
        return rate
    model = folder / "by-name" / MODEL / "model.keras"
    command = [sys.executable, "-m", "benchmarks.loops", name, kafka.bootstrap_servers, topics.jobs, topics.predictions]
    started = subprocess.Popen([*command, str(model), str(count)])  # noqa: S603 - our own module
    try:
        rate = _rate(kafka, topics.predictions, count)
        started.wait(30)
    finally:
        started.kill()
        started.wait(30)
    return rate


def _publish(kafka: LocalKafka, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "queue.buffering.max.messages": count + 1})
    for number in range(count):
        data = np.array([number, 0, 0, 0], "<f4").tobytes()
        body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": data}]}
        headers = [("model-key", MODEL.encode()), ("correlation-id", str(number).encode())]
        producer.produce(topic, msgpack.packb(body), headers=headers, partition=number % PARTITIONS)
    if producer.flush(60):
        raise SystemExit("the jobs could not be published")


def _rate(kafka: LocalKafka, topic: str, count: int) -> float:
    """Wait for `count` answers, check each, and give their rate by their own timestamps."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    seen: set[int] = set()
    times: list[int] = []
    deadline = time.monotonic() + LIMIT_S
    while len(seen) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{topic}: {len(seen)} of {count} answers within {LIMIT_S:g} s")
        for message in consumer.consume(1_000, 0.2):
            number = int(dict(message.headers())["correlation-id"])
            scores = np.frombuffer(msgpack.unpackb(message.value())["outputs"][0]["data"], "<f4")
            if scores.tolist() != [number + BIAS] * 3:
                raise SystemExit(f"job {number}: {scores.tolist()}")
            seen.add(number)
            times.append(message.timestamp()[1])
    consumer.close()
    return (count - 1) * 1000 / max(1, max(times) - min(times))


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
