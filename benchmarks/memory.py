"""The most memory that a consumer takes: with a steady stream, with a backlog, and with a backlog and no way out.

    python -m benchmarks.memory [--gigabytes 2] [--delivery at-least-once] [--json]

A process each, on one broker: its largest resident memory (VmHWM of proc(5)) after a warm stream of jobs; after a
backlog of jobs of 100 kB; and in the midst of such a backlog while the broker takes no prediction, for a minute, and
after it has taken them all.
"""

import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from confluent_kafka import Producer
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from benchmarks.common import parser, report, surroundings, table, tell
from consumer.local import LocalKafka
from tests import stores
from tests.conftest import PARTITIONS, Topics, fresh_topics
from tests.ledger import lag
from tests.replica import Replica, options, replica, until

JOB_BYTES = 100_000
STREAM_JOBS = 2_000
STOPPED_S = 60.0
DONE_S = 900.0


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--gigabytes", type=float, default=2.0, help="of the backlog")
    arguments.add_argument("--delivery", default="at-least-once", help="or exactly-once")
    given = arguments.parse_args()
    found: list[dict[str, Any]] = []
    with surroundings() as (kafka, folder):
        tell("building the model")
        store = stores.write(folder / "store")
        jobs = int(given.gigabytes * 1e9 / JOB_BYTES)
        for name, count, stopped in (
            ("stream", STREAM_JOBS, False),
            ("backlog", jobs, False),
            ("no way out", jobs, True),
        ):
            tell(f"{name}: {count} jobs of {JOB_BYTES} bytes")
            found.append({"case": name} | _case(kafka, folder, store, given.delivery, count, stopped=stopped))
    header = ["backlog_mb", "stopped_mb", "largest_mb", "seconds"]
    report(
        {"delivery": given.delivery, "memory": found},
        as_json=given.json,
        text=lambda: table(["", *header], [[row["case"], *(row.get(name, "") for name in header)] for row in found]),
    )


def _case(kafka: LocalKafka, folder: Path, store: Path, delivery: str, count: int, *, stopped: bool) -> dict[str, Any]:
    topics = fresh_topics(kafka)
    _publish(kafka, topics, count)
    _in_sync(kafka, topics.predictions, 2 if stopped else 1)
    row: dict[str, Any] = {"backlog_mb": round(count * JOB_BYTES / 1e6)}
    started = options(kafka, topics, store, PRELOAD=stores.DOUBLE, DELIVERY=delivery)
    with replica(folder / f"{topics.jobs}.log", **started) as process:
        began = time.perf_counter()
        if stopped:
            until(lambda: process.get("/readyz")[0] == 503, DONE_S, "a process that is stuck")
            time.sleep(STOPPED_S)
            row["stopped_mb"] = _largest_mb(process)
            _in_sync(kafka, topics.predictions, 1)
        until(lambda: lag(kafka, topics) == 0, DONE_S, "all jobs done")
        row |= {"seconds": round(time.perf_counter() - began, 1), "largest_mb": _largest_mb(process)}
        assert process.stop() == 0
    return row


def _publish(kafka: LocalKafka, topics: Topics, count: int) -> None:
    values = np.zeros(JOB_BYTES // 4, "<f4")
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values.tobytes()}]
    body = msgpack.packb({"inputs": inputs})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5, "log_level": 2})
    headers = [("model-key", stores.DOUBLE.encode())]
    for number in range(count):
        while True:
            try:
                producer.produce(topics.jobs, body, headers=headers, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


def _in_sync(kafka: LocalKafka, topic: str, replicas: int) -> None:
    """With more than there are, the broker takes no record of the topic."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        change = {"min.insync.replicas": str(replicas)}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, change)])
    finally:
        admin.close()


def _largest_mb(process: Replica) -> float:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) / 1000, 1)


if __name__ == "__main__":
    main()
