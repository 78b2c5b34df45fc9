"""Records written to kafka-python's batches in bulk are the records that were meant, to a reader of another library."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given
from hypothesis import strategies as some
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2 as clients_murmur2
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from consumer.delivery import bulk
from consumer.delivery.bulk import BulkProducer, Sent, content, partition_of_key, size_alone
from consumer.local import LocalKafka
from tests.conftest import PARTITIONS, Topics
from tests.replica import until

READ_S = 30.0
LARGE = 200_000
RECORDS: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
    (None, None, []),
    (b"", b"", [("", b"")]),
    (b"key", b"value", [("name", b"content"), ("name", b"again"), ("ñame", b"")]),
    (b"k" * 200, b"v" * LARGE, [("n" * 300, b"c" * 20_000)]),
    (None, b"v", []),
]


@pytest.fixture
def producer(kafka: LocalKafka) -> Iterator[BulkProducer]:
    made = BulkProducer(bootstrap_servers=kafka.bootstrap_servers, batch_size=100_000, linger_ms=20)
    yield made
    made.close(timeout=5)


def read(kafka: LocalKafka, topic: str, count: int, partition: int = 0) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[Any] = []

    def all_there() -> bool:
        found.extend(message for message in consumer.consume(1_000, 0.2) if message.error() is None)
        return len(found) >= count

    until(all_there, READ_S, f"{count} records")
    consumer.close()
    return [(message.key(), message.value(), message.headers() or []) for message in found]


def acknowledged(batches: list[Sent]) -> bool:
    until(lambda: all(sent.done for sent in batches), READ_S, "acknowledgements")
    return all(sent.error is None for sent in batches)


def test_records_come_out_as_they_went_in(kafka: LocalKafka, topics: Topics, producer: BulkProducer) -> None:
    batches = producer.write(topics.jobs, 0, [content(*record) for record in RECORDS])
    assert acknowledged(batches)
    assert sum(sent.count for sent in batches) == len(RECORDS)
    assert len(batches) > 1  # the large one does not fit the batch of those before it
    assert read(kafka, topics.jobs, len(RECORDS)) == RECORDS


def test_many_records_share_batches_with_each_other_and_with_send(
    kafka: LocalKafka, topics: Topics, producer: BulkProducer
) -> None:
    values = [b"%d" % number for number in range(5_000)]
    batches: list[Sent] = []
    for start in range(0, 2_000, 10):
        batches += producer.write(topics.jobs, 0, [content(None, value, []) for value in values[start : start + 10]])
    sent_alone = [producer.send(topics.jobs, value, partition=0) for value in values[2_000:2_010]]
    batches += producer.write(topics.jobs, 0, [content(None, value, []) for value in values[2_010:]])
    assert acknowledged(batches)
    assert all(future.get(timeout=READ_S) for future in sent_alone)
    assert len({id(sent.future) for sent in batches}) < len(batches)
    assert [value for _, value, _ in read(kafka, topics.jobs, len(values))] == values


def test_a_batch_that_the_broker_refuses_fails_whole(kafka: LocalKafka, topics: Topics) -> None:
    big = BulkProducer(
        bootstrap_servers=kafka.bootstrap_servers, batch_size=3_000_000, max_request_size=4_000_000, linger_ms=20
    )
    [sent] = big.write(topics.jobs, 0, [content(None, bytes(600_000), [])] * 3)
    until(lambda: sent.done, READ_S, "an answer")
    assert type(sent.error).__name__ == "MessageSizeTooLargeError"
    big.close(timeout=5)


@given(
    some.none() | some.binary(max_size=300),
    some.none() | some.binary(max_size=20_000),
    some.lists(some.tuples(some.text(max_size=50), some.binary(max_size=300))),
)
def test_a_content_is_what_the_client_itself_would_write(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    theirs, ours = (MemoryRecordsBuilder(2, 0, 100) for _ in range(2))
    theirs.append(1_000, key, value, headers)
    bulk.fill(ours, [content(key, value, headers)], 0, 1_000)
    for written in (theirs, ours):
        written.close()
    assert bytes(ours.buffer()) == bytes(theirs.buffer())
    assert len(ours.buffer()) <= size_alone(content(key, value, headers))
    [record] = next(MemoryRecords(ours.buffer()))
    assert (record.key, record.value) == (key, value)


def test_keys_lead_where_the_client_would_send_them(kafka: LocalKafka, topics: Topics) -> None:
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as plain:
        for number in range(50):
            key = b"key %d" % number
            sent = plain.send(topics.jobs, b"", key=key)
            assert sent.get(timeout=READ_S).partition == partition_of_key(key, PARTITIONS)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 36, bulk.SHORT, bulk.SHORT + 1, 10_000])
def test_keys_are_hashed_as_the_client_does(length: int) -> None:
    random = Random(length)
    for _ in range(20):
        key = random.randbytes(length)
        assert bulk.murmur2(key) == clients_murmur2(key) & 0x7FFFFFFF
        assert partition_of_key(key, 7) == bulk.murmur2(key) % 7


def test_what_is_long_is_not_remembered() -> None:
    before = bulk._known_hash.cache_info().currsize, bulk._known_name.cache_info().currsize
    partition_of_key(bytes(bulk.SHORT + 1), 7)
    content(None, None, [("n" * (bulk.SHORT + 1), b"")])
    assert (bulk._known_hash.cache_info().currsize, bulk._known_name.cache_info().currsize) == before
