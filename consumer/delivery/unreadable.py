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


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """What is known of such a record: where it stands."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: RawHeaders = ()


def is_unreadable(settings: Settings, partition: Any, offset: int) -> bool:
    """Whether the record at this place is one: it is read by a consumer of its own, which may then hang or fail.

    False where that cannot be found out now; the question comes again with the next poll.
    """
    try:
        consumer = _probe(settings)
    except KafkaError:
        return False
    try:
        place = TopicPartition(*partition)
        consumer.assign([place])
        end = consumer.end_offsets([place], timeout_ms=int(PROBE_S * 1000))[place]
        consumer.seek(place, offset)
        deadline = time.monotonic() + PROBE_S
        while offset < end and time.monotonic() < deadline:
            if consumer.poll(timeout_ms=200, max_records=1):
                return False
    except CorruptRecordError:
        return True
    except KafkaError:
        return False
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
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
