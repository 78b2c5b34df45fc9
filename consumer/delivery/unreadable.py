"""Records that the client cannot parse at all: a wrong checksum, a structure that is none.

kafka-python raises once, without saying where, and hangs in the next poll unless the consumer is moved past the record.
"""

import time
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError

from consumer.delivery.connection import common
from consumer.settings import Settings
from schemas.messages import RawHeaders

PROBE_S = 5.0
STEP = 500
"""Records that are passed at a time, as many as a poll gives at the most."""


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """What is known of such a record: where it stands."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: RawHeaders = ()


def count_unreadable(settings: Settings, partition: Any, offset: int, at_most: int) -> int:
    """How many records from this place on cannot be parsed, up to `at_most`: they are read by a consumer of its own,
    which may then hang or fail. A batch that cannot be decompressed has as many as it has offsets.

    0 where that cannot be found out now; the question comes again with the next poll.
    """
    try:
        consumer = _probe(settings)
    except KafkaError:
        return 0
    found = 0
    try:
        place = TopicPartition(*partition)
        consumer.assign([place])
        end = consumer.end_offsets([place], timeout_ms=int(PROBE_S * 1000))[place]
        deadline = time.monotonic() + PROBE_S
        while found < at_most and offset + found < end and _fails(consumer, place, offset + found, deadline):
            found += 1
    except KafkaError:
        pass  # what was found holds
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
    return found


def _fails(consumer: Any, place: TopicPartition, offset: int, deadline: float) -> bool:
    consumer.seek(place, offset)
    try:
        while time.monotonic() < deadline:
            if consumer.poll(timeout_ms=200, max_records=1):
                return False
    except CorruptRecordError:
        return True
    return False


def _probe(settings: Settings) -> KafkaConsumer:
    return KafkaConsumer(
        **common(settings, "loadonce-probe"),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        metrics_enabled=False,
    )
