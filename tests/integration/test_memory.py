"""However many jobs come, they take no more memory than what may be in hand."""

from pathlib import Path

import msgpack
import numpy as np
from confluent_kafka import Producer

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import PARTITIONS, Topics
from tests.ledger import lag
from tests.replica import Replica, options, replica, until

JOB_BYTES = 100_000
JOBS = 10_000
GROWTH_MB = 500
"""What may be in hand (256 MB of jobs) and what kafka-python and the broker's answers take beside it."""
TIMEOUT_S = 120.0


def test_a_gigabyte_of_jobs(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    data = np.zeros(JOB_BYTES // 4, "<f4")
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, len(data)], "data": data.tobytes()}]
    body = msgpack.packb({"inputs": inputs})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
    headers = [("model-key", stores.DOUBLE.encode())]

    def publish(jobs: int) -> None:
        for number in range(jobs):
            producer.produce(topics.jobs, body, headers=headers, partition=number % PARTITIONS)
            if number % 100 == 99:
                assert producer.flush(TIMEOUT_S) == 0
        assert producer.flush(TIMEOUT_S) == 0

    with replica(tmp_path / "log", **options(kafka, topics, store, PRELOAD=stores.DOUBLE)) as process:
        process.wait_ready()
        before = _largest_mb(process)
        publish(JOBS)
        until(lambda: lag(kafka, topics) == 0, TIMEOUT_S, "all jobs done")
        assert _largest_mb(process) - before < GROWTH_MB
        assert process.stop() == 0


def _largest_mb(process: Replica) -> float:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000
