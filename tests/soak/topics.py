"""The two ends of a soak: jobs published at a steady rate, and a read_committed reader of all that becomes of them."""

import threading
import time

import msgpack
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from consumer.local import LocalKafka
from tests.conftest import Topics
from tests.soak.jobs import numbered, record, values
from tests.soak.ledger import Answer, Ledger

PARTITIONS = 6
FLUSH_S = 60.0
REQUEST_S = 15.0


class Publisher:
    """Jobs with the numbers from 0, on a thread of its own: whatever happens to the brokers, each once."""

    def __init__(self, kafka: LocalKafka, topics: Topics, *, seed: int, rate: float) -> None:
        self._topic = topics.jobs
        self._seed = seed
        self._rate = rate
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "log_level": 2,
                "linger.ms": 5,
                "enable.idempotence": True,
                "delivery.timeout.ms": 600_000,
            }
        )
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self.published = 0
        self.refused: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> int:
        """End, once the brokers have everything; how many jobs they do not have."""
        self._done.set()
        self._thread.join(FLUSH_S)
        return int(self._producer.flush(FLUSH_S)) + len(self.refused)

    def _run(self) -> None:
        start = time.monotonic()
        while not self._done.wait(max(0.0, start + self.published / self._rate - time.monotonic())):
            value, headers = record(self._seed, self.published, time.time_ns() // 1_000_000)
            partition = self.published % PARTITIONS
            self._producer.produce(
                self._topic, value, headers=headers, partition=partition, on_delivery=self._delivered
            )
            self._producer.poll(0)
            self.published += 1

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.refused.append(str(error))


class Reader:
    """Gives the ledger every prediction and dead letter that a read_committed reader sees."""

    def __init__(self, kafka: LocalKafka, topics: Topics, ledger: Ledger) -> None:
        self._kafka = kafka
        self._topics = topics
        self._ledger = ledger
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "log_level": 2,
                "group.id": f"ledger-{topics.jobs}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        outputs = (topics.predictions, topics.dead_letters)
        self._partitions = [TopicPartition(topic, number, 0) for topic in outputs for number in range(PARTITIONS)]
        self._consumer.assign(self._partitions)
        self._ends: dict[tuple[str, int], int] = {}
        self.last_answer = time.monotonic()
        self.longest_pause_s = 0.0
        self.paused_at = 0.0  # of `time.monotonic`: the end of that pause

    def begin(self) -> None:
        """From now on answers are to come."""
        self.last_answer, self.longest_pause_s = time.monotonic(), 0.0

    def collect(self) -> None:
        """What has come within 0.1 s."""
        found = False
        for message in self._consumer.consume(1_000, 0.1):
            error = message.error()
            if error is None:
                self._ledger.take(_answer(message, dead=message.topic() == self._topics.dead_letters))
                found = True
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ends[message.topic(), message.partition()] = message.offset()
        now = time.monotonic()
        if now - self.last_answer > self.longest_pause_s:
            self.longest_pause_s, self.paused_at = now - self.last_answer, now
        if found:
            self.last_answer = now

    def at_end(self) -> bool:
        """Whether all that is in the topics has been read, and no transaction is open."""
        for partition in self._partitions:
            _, end = self._consumer.get_watermark_offsets(partition, timeout=REQUEST_S)
            if end and self._ends.get((partition.topic, partition.partition), 0) < end:
                return False
        return True

    def jobs(self) -> tuple[int, int]:
        """Records in the jobs topic, and how many of them the group has not committed."""
        probe = Consumer({"bootstrap.servers": self._kafka.bootstrap_servers, "group.id": self._topics.jobs})
        try:
            partitions = [TopicPartition(self._topics.jobs, number) for number in range(PARTITIONS)]
            ends = sum(probe.get_watermark_offsets(partition, timeout=REQUEST_S)[1] for partition in partitions)
            committed = sum(max(found.offset, 0) for found in probe.committed(partitions, timeout=REQUEST_S))
            return ends, ends - committed
        finally:
            probe.close()

    def close(self) -> None:
        """No more."""
        self._consumer.close()


def _answer(message: Message, *, dead: bool) -> Answer:
    headers = dict(message.headers())
    number, made_ms = numbered(headers["correlation-id"])
    answered_ms = message.timestamp()[1]
    position = f"{message.topic()}/{message.partition()}/{message.offset()}"
    job = headers["dlq-position" if dead else "job-position"]
    position += f" of {job.decode()}"
    if dead:
        return Answer(number, made_ms, answered_ms, position, job, headers["dlq-reason"].decode())
    document = msgpack.unpackb(message.value())
    return Answer(
        number=number,
        made_ms=made_ms,
        answered_ms=answered_ms,
        position=position,
        job=job,
        model=headers["model-key"].decode(),
        version=int(headers["model-version"]),
        values=values(document) if document["id"] == str(number) else (),
    )
