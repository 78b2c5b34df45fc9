"""Dead letters as a consumer writes them, and a topic as a read_committed reader of another library sees it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from consumer.delivery.dead_letters import dead_letter
from consumer.local import LocalKafka
from schemas.reasons import Failure, Reason, Stage
from tests.conftest import PARTITIONS, Topics

LIMIT = 1_000_000
FAILED_AT_MS = 1_700_000_000_000
READ_S = 30.0


@dataclass(frozen=True, slots=True)
class Dead:
    """A job and why it is a dead letter. `partition` is that of the job, and of its dead letter."""

    offset: int
    reason: Reason = Reason.MODEL_UNAVAILABLE
    model: str = "wine"
    partition: int = 0
    key: bytes | None = None
    value: bytes | None = b"body"
    headers: tuple[tuple[str, bytes], ...] = ()
    failed_at_ms: int = FAILED_AT_MS
    limit: int = LIMIT
    topic: str = ""
    more: tuple[tuple[str, bytes], ...] = field(default=())


def write(kafka: LocalKafka, topics: Topics, letters: Iterable[Dead]) -> None:
    """Write dead letters, in order."""
    # Idempotent: what librdkafka sends again, to a topic this fresh, would otherwise come after what follows it.
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5, "enable.idempotence": True})
    for letter in letters:
        key, value, headers = dead_letter(
            key=letter.key,
            value=letter.value,
            headers=[("model-key", letter.model.encode()), *letter.headers],
            position=f"{letter.topic or topics.jobs}/{letter.partition}/{letter.offset}",
            failure=Failure(letter.reason, Stage.LOAD, "the store does not answer"),
            failed_at_ms=letter.failed_at_ms,
            consumer="a-1",
            limit=letter.limit,
        )
        producer.produce(
            topics.dead_letters, value, key, partition=letter.partition % PARTITIONS, headers=[*headers, *letter.more]
        )
        producer.poll(0)
    assert producer.flush(30) == 0


def committed(kafka: LocalKafka, topic: str) -> list[Message]:
    """All records of a topic that a read_committed reader sees, partition by partition, in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"reader-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        found: list[Message] = []
        at_end: set[int] = set()
        deadline = time.monotonic() + READ_S
        while len(at_end) < len(partitions):
            assert time.monotonic() < deadline, "the topic has no end"
            for message in consumer.consume(1_000, 0.1):
                if message.error() is None:
                    found.append(message)
                else:
                    at_end.add(message.partition())
    finally:
        consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))
