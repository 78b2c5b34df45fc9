"""A topic full of jobs that contenders work off in turn, and what their answers say of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from numpy.typing import NDArray

from consumer.local import LocalKafka
from tests.conftest import PARTITIONS

LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What came out: jobs a second by the answers' own timestamps, and each job's answer, as it came."""

    rate: float
    values: dict[int, bytes]


def body(row: NDArray[np.float32], name: str) -> bytes:
    """A job of one row for a model whose input has this name."""
    tensor = {"name": name, "datatype": "FP32", "shape": [1, row.size], "data": row.astype("<f4").tobytes()}
    packed: bytes = msgpack.packb({"inputs": [tensor]})
    return packed


def publish(kafka: LocalKafka, topic: str, model: str, bodies: Sequence[bytes]) -> None:
    """One job each, numbered by its correlation id, all partitions alike."""
    quiet = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
    producer = Producer(quiet | {"queue.buffering.max.messages": len(bodies) + 1, "linger.ms": 20})
    for number, value in enumerate(bodies):
        headers = [("model-key", model.encode()), ("correlation-id", str(number).encode())]
        producer.produce(topic, value, headers=headers, partition=number % PARTITIONS)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("the jobs could not be published")


def answers(kafka: LocalKafka, topic: str, count: int) -> Answered:
    """Wait for `count` jobs' answers in a topic, each once. SystemExit: they do not come, or some come twice."""
    quiet = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
    consumer = Consumer(quiet | {"group.id": topic, "enable.auto.commit": False, "fetch.queue.backoff.ms": 5})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    values: dict[int, bytes] = {}
    first = last = 0
    read = 0
    deadline = time.monotonic() + LIMIT_S
    while len(values) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{topic}: {len(values)} of {count} answers within {LIMIT_S:g} s")
        for message in consumer.consume(10_000, 0.2):
            values[int(dict(message.headers())["correlation-id"])] = message.value()
            sent = message.timestamp()[1]
            first, last = min(first or sent, sent), max(last, sent)
            read += 1
    consumer.close()
    if read != count:
        raise SystemExit(f"{topic}: {read - count} jobs were answered twice")
    return Answered((count - 1) * 1000 / max(1, last - first), values)
