"""Records on their way out, and writing them in one transaction."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kafka.errors import KafkaTimeoutError

from consumer.delivery.bulk import BulkProducer


@dataclass(frozen=True, slots=True)
class Addressed:
    """A record to be written: where, and its content as `bulk.content` has it."""

    topic: str
    partition: int
    content: bytes


def write_together(
    producer: BulkProducer,
    records: Iterable[Addressed],
    *,
    flush_s: float,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Write all of them in one transaction, or raise what the client raises: then only the topics know.

    A commit can report success for what was never written: every record is looked at first, and `before_commit`, where
    offsets are sent, comes after that. Beginning and ending know no time limit.
    """
    places: dict[tuple[str, int], list[bytes]] = {}
    for record in records:
        places.setdefault((record.topic, record.partition), []).append(record.content)
    producer.begin_transaction()
    batches = [
        sent for (topic, partition), contents in places.items() for sent in producer.write(topic, partition, contents)
    ]
    producer.flush(timeout=flush_s)
    for sent in batches:
        if not sent.done:
            raise KafkaTimeoutError(f"not acknowledged within {flush_s:g} s")
        if sent.error is not None:
            raise sent.error
    before_commit()
    producer.commit_transaction()
