"""Reads a range of a partition, committed records only, without a group: nothing is joined and nothing committed."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition

from consumer.delivery.connection import common, explained
from consumer.exits import Exit, FatalError
from consumer.settings import Settings
from schemas.batches import read_with_care

POLL_S = 0.2
REQUEST_S = 10.0
STANDSTILL_S = 30.0
"""How long a partition may give nothing although there is something; a leader is elected in 10 s."""


class Reader:
    """One consumer, used for one partition after the other, so that all runs see a topic in the same order."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._consumer: Any = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close(autocommit=False, timeout_ms=1_000)

    def bounds(self, topic: str, partitions: int) -> tuple[dict[int, int], dict[int, int]]:
        """Where each partition begins and ends at present, transactions that are still open left out. FatalError."""
        places = [TopicPartition(topic, number) for number in range(partitions)]
        with explained(self._settings):
            begins = self._consumer.beginning_offsets(places, timeout_ms=int(REQUEST_S * 1000))
            ends = self._consumer.end_offsets(places, timeout_ms=int(REQUEST_S * 1000))
        return {place.partition: begins[place] for place in places}, {place.partition: ends[place] for place in places}

    def read(self, topic: str, partition: int, begin: int, end: int) -> Iterator[list[Any]]:
        """The ConsumerRecords from `begin` on, before `end`; never an empty list. One that cannot be read has
        `Unopened` headers.

        Raises:
            FatalError: no broker, or not allowed to read (69, 77); nothing came for STANDSTILL_S (75).
        """
        place = TopicPartition(topic, partition)
        position, moved = begin, self._clock()
        self._seek(place, begin)
        while position < end:
            records = self._poll(place)
            if records and records[0].offset < end:
                # What comes after the end is read with it, and left out.
                yield records if records[-1].offset < end else [each for each in records if each.offset < end]
            reached = self._position(place)  # beyond what is no record: the marker at the end of a transaction
            if reached > position:
                position, moved = reached, self._clock()
            elif self._clock() - moved > STANDSTILL_S:
                raise FatalError(
                    Exit.TEMPORARY, f"{topic}/{partition}: nothing came for {STANDSTILL_S:g} s at offset {position}"
                )

    def _poll(self, place: TopicPartition) -> list[Any]:
        with explained(self._settings):
            records: list[Any] = self._consumer.poll(timeout_ms=int(POLL_S * 1000)).get(place, [])
        return records

    def _position(self, place: TopicPartition) -> int:
        with explained(self._settings):
            position: int = self._consumer.position(place, timeout_ms=int(REQUEST_S * 1000))
        return position

    def _open(self) -> None:
        with explained(self._settings):
            self._consumer = KafkaConsumer(
                **common(self._settings, "loadonce-dlq"),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # what retention has removed meanwhile is passed
                isolation_level="read_committed",
                max_partition_fetch_bytes=4 * 1024**2,
                fetch_max_bytes=4 * 1024**2,
                metrics_enabled=False,
            )
        read_with_care(self._consumer)

    def _seek(self, place: TopicPartition, offset: int) -> None:
        self._consumer.assign([place])
        self._consumer.seek(place, offset)
