"""Records on their way out, and writing them in one transaction."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Addressed:
    """A record to be written. Without a partition it goes where its key leads, or anywhere."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None


def write_together(
    producer: Any, records: Iterable[Addressed], *, flush_s: float, before_commit: Callable[[], None] = lambda: None
) -> None:
    """Write all of them in one transaction, or raise what the client raises: then only the topics know.

    A commit can report success for what was never written: every record is looked at first, and `before_commit`, where
    offsets are sent, comes after that. Beginning and ending know no time limit.
    """
    producer.begin_transaction()
    futures = [
        producer.send(
            record.topic, value=record.value, key=record.key, headers=record.headers, partition=record.partition
        )
        for record in records
    ]
    producer.flush(timeout=flush_s)
    for future in futures:
        future.get(timeout=0)  # raises what has become of the record
    before_commit()
    producer.commit_transaction()
