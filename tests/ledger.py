"""Jobs published by id, and what each of them became, kept by a client of another library."""

from collections import Counter

import msgpack
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import PARTITIONS, Topics
from tests.replica import until

ANSWERS_S = 60.0


class Ledger:
    """Jobs published by id, and what each of them became."""

    def __init__(self, kafka: LocalKafka, topics: Topics) -> None:
        self._topics = topics
        # Brokers are stopped here on purpose: librdkafka's own lines about it (level 3) would bury the tests' output.
        quiet = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
        # What this publisher sends twice would be answered twice.
        self._producer = Producer(quiet | {"linger.ms": 1, "enable.idempotence": True})
        self._consumer = Consumer(
            quiet
            | {
                "group.id": f"ledger-{topics.jobs}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # of a topic that was made anew, all is to be read
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign(
            [
                TopicPartition(topic, number, 0)
                for topic in (topics.predictions, topics.dead_letters)
                for number in range(PARTITIONS)
            ]
        )
        self.published = 0
        self.answers: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.unparsed: list[tuple[str, str, bool]] = []  # dead letters without an id: position, reason, truncated
        self.poisonous: list[int] = []
        self.answered_ms: dict[int, int] = {}

    def publish(self, count: int, model: str = stores.DOUBLE) -> None:
        """Jobs with the ids that follow; every tenth cannot be read."""
        for number in range(self.published, self.published + count):
            value = self.body(number) if number % 10 else b"\xc1"
            headers = [("model-key", model.encode()), ("correlation-id", str(number).encode())]
            self._producer.produce(self._topics.jobs, value, headers=headers, partition=number % 2)
            self._producer.poll(0)
        self.published += count
        assert self._producer.flush(30) == 0

    @staticmethod
    def body(number: int) -> bytes:
        """The body of the job of this id."""
        data = np.array([number], "<f4").tobytes()
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": data}]
        packed: bytes = msgpack.packb({"id": str(number), "inputs": inputs})
        return packed

    def collect(self) -> int:
        """Read what has come; how many jobs have an answer."""
        for message in self._consumer.consume(1_000, 0.2):
            if message.error() is not None:
                continue  # a broker that is away; nothing is read, so nothing is missed
            headers = dict(message.headers())
            if "correlation-id" not in headers:
                whole = "dlq-truncated" not in headers
                self.unparsed.append((headers["dlq-position"].decode(), headers["dlq-reason"].decode(), not whole))
                continue
            number = int(headers["correlation-id"])
            if message.topic() == self._topics.predictions:
                document = msgpack.unpackb(message.value())
                [double] = np.frombuffer(document["outputs"][0]["data"], "<f4")
                assert (document["id"], double) == (str(number), 2 * number)
                outcome = "prediction"
            else:
                outcome = headers["dlq-reason"].decode()
                if outcome == "poison" and number not in self.poisonous:
                    self.poisonous.append(number)
            if not self.answers[number]:
                self.reasons[outcome] += 1
                self.answered_ms[number] = message.timestamp()[1]
            self.answers[number] += 1
        return len(self.answers)

    def settle(self) -> None:
        """Wait until every job is answered, and check what by."""
        until(lambda: self.collect() == self.published, ANSWERS_S, "an answer to every job")
        unreadable = len([number for number in range(self.published) if number % 10 == 0])
        assert self.reasons == {"bad-body": unreadable, "prediction": self.published - unreadable}

    @property
    def duplicates(self) -> int:
        """Answers beyond the first of each job."""
        return self.answers.total() - len(self.answers)


def lag(kafka: LocalKafka, topics: Topics) -> int:
    """Jobs that the group has not committed."""
    probe = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topics.jobs})
    try:
        partitions = [TopicPartition(topics.jobs, number) for number in range(PARTITIONS)]
        ends = [probe.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions]
        committed = [max(partition.offset, 0) for partition in probe.committed(partitions, timeout=10)]
        return int(sum(ends) - sum(committed))
    finally:
        probe.close()
