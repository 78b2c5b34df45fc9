"""Fakes of a Kafka and of its consumer, and a process that reads from them as the loop does, without models."""

from collections.abc import Iterable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from kafka import OffsetAndMetadata, TopicPartition
from kafka.coordinator.heartbeat import Heartbeat
from kafka.errors import KafkaTimeoutError
from kafka.structs import MemberState

from consumer import settings
from consumer.delivery import source as source_module
from consumer.delivery.caution import Caution
from consumer.delivery.offsets import Offsets
from consumer.delivery.source import Source

TOPIC = "inference.jobs"
ALLOWED = 2
ALONE_FOR = 100
SIZE = 10

Job = tuple[int, int]
"""Partition and offset."""


class FakeKafka:
    """Stands for the brokers: the offsets of the jobs in each partition, and where the group stands."""

    def __init__(self, log: Mapping[int, Iterable[int]]) -> None:
        self.log = {partition: list(offsets) for partition, offsets in log.items()}
        self.places: dict[int, tuple[int, str]] = {}
        self.giving = True  # records; an assignment comes before its first ones
        self.answering = True
        self.confirming = True  # False: what is committed is written, and its answer lost

    def end(self, partition: int) -> int:
        return self.log[partition][-1] + 1


class FakeConsumer:
    """Stands for kafka-python's consumer, over a FakeKafka."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self.listener: Any = None
        self._fetcher = SimpleNamespace(PartitionRecords=None)  # what it would be taught to read with
        self._coordinator = SimpleNamespace(
            heartbeat=Heartbeat(),
            coordinator_unknown=lambda: False,
            _heartbeat_wakeup=SimpleNamespace(notify=lambda: None),
            _heartbeat_enabled=True,
            _heartbeat_loop_future=SimpleNamespace(is_done=False),
            _join_task=None,
            _offset_fetch_futures={},
        )

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self.listener = listener

    def give(self, *partitions: int) -> None:
        given = [TopicPartition(TOPIC, partition) for partition in partitions]
        for place in given:
            self._positions[place] = self._kafka.places.get(place.partition, (0, ""))[0]
        self.listener.on_partitions_assigned(given)

    def take(self, *partitions: int) -> None:
        taken = self._gone(partitions)
        self.listener.on_partitions_revoked(taken)

    def lose(self, *partitions: int) -> None:
        self.listener.on_partitions_lost(self._gone(partitions))

    def _gone(self, partitions: Iterable[int]) -> list[TopicPartition]:
        gone = [TopicPartition(TOPIC, partition) for partition in partitions]
        for place in gone:
            del self._positions[place]
        return gone

    def group_metadata(self) -> Any:
        return SimpleNamespace(member_id="member", state=MemberState.STABLE, generation_id=1)

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def paused(self) -> set[TopicPartition]:
        return self._paused & self.assignment()

    def pause(self, place: TopicPartition) -> None:
        self._paused.add(place)

    def resume(self, place: TopicPartition) -> None:
        self._paused.discard(place)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    def position(self, place: TopicPartition, timeout_ms: int) -> int:
        return self._positions[place]

    def poll(self, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[Any]]:
        polled = {}
        for place in sorted(self.assignment() - self._paused) if self._kafka.giving else []:
            offsets = [offset for offset in self._kafka.log[place.partition] if offset >= self._positions[place]]
            if offsets:
                polled[place] = [SimpleNamespace(partition=place.partition, offset=offset) for offset in offsets]
                self._positions[place] = self._kafka.end(place.partition)
        return polled

    def commit(self, entries: Mapping[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        self._answer()
        self.commit_async(entries)
        if not self._kafka.confirming:
            raise KafkaTimeoutError

    def commit_async(self, entries: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self._kafka.places.update({place.partition: (to.offset, to.metadata) for place, to in entries.items()})

    def committed(self, place: TopicPartition, timeout_ms: int, metadata: bool = False) -> Any:
        self._answer()
        known = self._kafka.places.get(place.partition)
        return known and SimpleNamespace(offset=known[0], metadata=known[1])

    def end_offsets(self, places: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        self._answer()
        return {place: self._kafka.end(place.partition) for place in places}

    def _answer(self) -> None:
        if not self._kafka.answering:
            raise KafkaTimeoutError


class Process:
    """What the loop does with source, offsets and caution, without models or a producer; it dies by being left."""

    def __init__(self, consumer: FakeConsumer, source: Source, offsets: Offsets) -> None:
        self.consumer = consumer
        self.source = source
        self.offsets = offsets
        self.told: list[tuple[int, int, int]] = []
        self.poison: list[Job] = []
        self.caution = Caution(
            source, offsets, allowed=ALLOWED, alone_for=ALONE_FOR, told=lambda *what: self.told.append(what)
        )

    def turn(self, *, idle: bool = True) -> list[Job]:
        """The jobs that are now given to be predicted, in one batch."""
        polled, ended = self.caution.pass_on(self.source.poll(0), idle=idle)
        given = [(record.partition, record.offset) for records in polled for record in records]
        rejected = [(record.partition, record.offset) for record in ended]
        for partition, offset in rejected + given:
            owned = self.offsets.of(partition)
            assert owned is not None
            owned.taken(offset, SIZE)
        self.poison += rejected
        self.source.pause_only(self.offsets.partitions if self.caution.holding else ())
        return given

    def soon(self) -> list[Job]:
        """The next that are given or rejected: what waited of an earlier assignment is dropped first."""
        rejected = len(self.poison)
        for _ in range(3):
            if (given := self.turn()) or len(self.poison) > rejected:
                return given
        raise AssertionError("nothing is given")

    def answer(self, *jobs: Job) -> None:
        for partition, offset in jobs:
            owned = self.offsets.of(partition)
            assert owned is not None
            self.offsets.done(partition, owned.epoch, offset, SIZE)

    def stop(self) -> bool:
        self.caution.drain()
        if self.source.release(1):
            return True
        self.source.poll(0)
        return self.source.release(1)


@cache
def _settings() -> settings.Settings:
    return settings.load()


def start(kafka: FakeKafka, partitions: Iterable[int] | None = None) -> Process:
    """Begin a process that owns these partitions, or all."""
    consumer = FakeConsumer(kafka)
    offsets = Offsets()
    with patch.object(source_module, "KafkaConsumer", lambda **_: consumer):
        source = Source(_settings(), "test", offsets)
    source.join()
    consumer.give(*(kafka.log if partitions is None else partitions))
    return Process(consumer, source, offsets)
