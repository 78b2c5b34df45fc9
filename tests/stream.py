"""A steady stream of jobs for a model whose versions can be told apart by their answers, and what became of each."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgpack
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from consumer.local import LocalKafka
from tests.conftest import PARTITIONS, Topics


@dataclass(frozen=True, slots=True)
class Answer:
    """One job's outcome: `version` is what the prediction's numbers say, None for a dead letter (`reason`).

    `wait_ms`: from the job's timestamp to that of its outcome, each set by its producer when it was sent.
    """

    number: int
    version: int | None
    reason: str | None
    wait_ms: int
    source: tuple[int, int]
    partition: int


class Stream:
    """Jobs of one row, [number, 0, 0, 0], which `models_zoo.dense(bias=version)` answers by number + version."""

    def __init__(self, kafka: LocalKafka, topics: Topics, model: str) -> None:
        self._topics = topics
        self._headers = [("model-key", model.encode())]
        quiet = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
        self._producer = Producer(quiet | {"linger.ms": 0})
        self._consumer = Consumer(quiet | {"group.id": f"stream-{topics.jobs}", "enable.auto.commit": False})
        self._consumer.assign(
            [
                TopicPartition(topic, number, 0)
                for topic in (topics.predictions, topics.dead_letters)
                for number in range(PARTITIONS)
            ]
        )
        self._sent_ms: dict[int, int] = {}
        self.published = 0
        self.answers: dict[int, Answer] = {}
        self.times: Counter[int] = Counter()

    def publish(self, rate: float, ending: Callable[[int], bool]) -> threading.Thread:
        """Publish `rate` jobs a second on a thread of its own, whatever becomes of them, until `ending(count)`."""
        thread = threading.Thread(target=self._publish, args=(rate, ending), name="publisher", daemon=True)
        thread.start()
        return thread

    def collect(self) -> int:
        """Read what has come; how many jobs have no answer yet."""
        for message in self._consumer.consume(1_000, 0.05):
            assert message.error() is None, message.error()
            answer = self._answer(message)
            self.times[answer.number] += 1
            self.answers.setdefault(answer.number, answer)
        return self.published - len(self.answers)

    def _publish(self, rate: float, ending: Callable[[int], bool]) -> None:
        start, count = time.perf_counter(), 0
        while not ending(count):
            time.sleep(max(0.0, start + count / rate - time.perf_counter()))
            number = self.published
            data = np.array([number, 0, 0, 0], "<f4").tobytes()
            body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": data}]}
            headers = [*self._headers, ("correlation-id", str(number).encode())]
            sent_ms = self._sent_ms[number] = time.time_ns() // 1_000_000
            self._producer.produce(
                self._topics.jobs,
                msgpack.packb(body),
                headers=headers,
                partition=number % PARTITIONS,
                timestamp=sent_ms,
            )
            self._producer.poll(0)
            self.published += 1
            count += 1
        assert self._producer.flush(30) == 0

    def _answer(self, message: Message) -> Answer:
        headers = dict(message.headers())
        number = int(headers["correlation-id"])
        version = reason = None
        if message.topic() == self._topics.predictions:
            [scores] = np.frombuffer(msgpack.unpackb(message.value())["outputs"][0]["data"], "<f4").reshape(1, 3)
            assert len(set(scores)) == 1, scores
            version = int(scores[0]) - number
            assert headers["model-version"] == str(version).encode()
            position = headers["job-position"]
        else:
            reason = headers["dlq-reason"].decode()
            position = headers["dlq-position"]
        _, partition, offset = position.decode().rsplit("/", 2)
        wait_ms = message.timestamp()[1] - self._sent_ms[number]
        return Answer(number, version, reason, wait_ms, (int(partition), int(offset)), message.partition())
