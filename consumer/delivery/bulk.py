"""kafka-python's producer, given many records in one call.

`KafkaProducer.send` is half of what a record costs in this client: locks, a dozen checks, two futures with callbacks,
some forty calls for the bytes of its lengths. Here the records of one partition are written into the client's batches
in one pass under one lock, and a batch has one future. What the client does with its batches after that (leaders,
retries, sequence numbers, transactions) is untouched.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from kafka import KafkaProducer, TopicPartition
from kafka.errors import IllegalStateError
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

from schemas.batches import MAGIC

BATCH_HEADER = 61
"""Bytes before the first record of a batch. Source of this and all below:
https://kafka.apache.org/documentation/#recordbatch"""
SHORT = 256
"""What is longer, keys in bytes and headers' names in characters, is not remembered."""
_MULTIPLIER = 0x5BD1E995
_WORD = 0xFFFFFFFF
_NOTHING = b"\x01"
"""-1 as a zigzag varint: the length of a key or value that is null."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Records that went into one batch, and what becomes of it."""

    count: int
    future: Any

    @property
    def done(self) -> bool:
        """Whether it is known what has become of them."""
        return bool(self.future.is_done)

    @property
    def error(self) -> BaseException | None:
        """Why they may not be in the log; None also while that is not known."""
        if not self.future.is_done:
            return None
        error_of = self.future.value[2]
        return None if error_of is None else error_of(0)


class BulkProducer(KafkaProducer):  # type: ignore[misc] # kafka-python has no types
    """KafkaProducer with `write`; `send` works beside it."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        # A batch that the broker finds too large would be split by the futures of its records. It fails instead.
        self._sender._can_split = lambda _batch, _error: False

    def partitions(self, topic: str) -> int:
        """How many the topic has. KafkaError: nothing is known of it within max_block_ms."""
        return len(self.partitions_for(topic))

    def write(self, topic: str, partition: int, contents: Sequence[bytes]) -> list[Sent]:
        """Have records sent to a partition, in their order; each is given as its `content`.

        KafkaError: nothing is known of the topic within max_block_ms; the producer was closed, or has failed.
        """
        self.partitions_for(topic)  # batches for a topic that the client does not know would wait for ever
        accumulator, transactions = self._accumulator, self._transaction_manager
        place = TopicPartition(topic, partition)
        if transactions is not None and transactions.is_transactional():
            transactions.maybe_add_partition_to_transaction(place)
        accumulator._appends_in_progress.increment()
        try:
            with accumulator._tp_lock(place):
                if accumulator._closed:
                    raise IllegalStateError("the producer is closed")
                return _append(accumulator, place, contents)
        finally:
            accumulator._appends_in_progress.decrement()
            self._sender.wakeup()


def content(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> bytes:
    """A record's key, value and headers as they are on the wire."""
    parts = [_NOTHING] if key is None else [_varint(len(key)), key]
    parts += (_NOTHING,) if value is None else (_varint(len(value)), value)
    parts.append(_varint(len(headers)))
    for name, header in headers:
        parts += (_known_name(name) if len(name) <= SHORT else _name(name), _varint(len(header)), header)
    return b"".join(parts)


def size_alone(record: bytes) -> int:
    """Bytes of a batch that holds nothing but the record of this content, at the most."""
    return BATCH_HEADER + _FRONT + len(record)


def partition_of_key(key: bytes, partitions: int) -> int:
    """Where Kafka's default partitioner puts a key."""
    return (_known_hash(key) if len(key) <= SHORT else murmur2(key)) % partitions


def murmur2(key: bytes) -> int:
    """A key's hash: what is the same for each word is done for all of them at once, a quarter of the client's time.

    Source: org.apache.kafka.common.utils.Utils.murmur2, less the sign that BuiltInPartitioner takes away.
    """
    words = len(key) // 4
    mixed = np.frombuffer(key, "<u4", words) * np.uint32(_MULTIPLIER)
    mixed ^= mixed >> np.uint32(24)
    mixed *= np.uint32(_MULTIPLIER)
    hashed = 0x9747B28C ^ len(key)
    for word in mixed.tolist():
        hashed = (hashed * _MULTIPLIER & _WORD) ^ word
    if rest := key[4 * words :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _WORD
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _WORD
    return (hashed ^ hashed >> 15) & 0x7FFFFFFF


_known_hash = lru_cache(maxsize=4096)(murmur2)


def _append(accumulator: Any, place: TopicPartition, contents: Sequence[bytes]) -> list[Sent]:
    config, batches = accumulator.config, accumulator._batches[place]
    batch = batches[-1] if batches and not batches[-1].records._closed else None
    now_ms = int(time.time() * 1000)
    sent: list[Sent] = []
    written = 0
    while written < len(contents):
        count = 0 if batch is None else fill(batch.records, contents, written, now_ms)
        if batch is not None and count:
            sent.append(Sent(count, batch.produce_future))
            written += count
        if written < len(contents):
            batch = ProducerBatch(place, MemoryRecordsBuilder(MAGIC, config["compression_attrs"], config["batch_size"]))
            batches.append(batch)
            accumulator._incomplete.add(batch)
    return sent


_FRONT = 5 + 1 + 10 + 5
"""Bytes of a record before its key at the most: length, attributes, timestamp, offset."""


def fill(records: MemoryRecordsBuilder, contents: Sequence[bytes], start: int, now_ms: int) -> int:
    """Add records to a batch, from `start` on, and how many: as many as fit, and the first of a batch in any case."""
    builder = records._builder
    buffer, most = builder._buffer, builder._batch_size
    first: int = builder._num_records
    index = first
    if index == 0:
        builder._first_timestamp = builder._max_timestamp = now_ms
    front = b"\x00" + _varint(now_ms - builder._first_timestamp)  # attributes, of which there are none, and the time
    for content in islice(contents, start, None):
        if index and len(buffer) + len(content) + _FRONT > most:
            break
        offset = _varint(index)
        buffer += _varint(len(front) + len(offset) + len(content)) + front + offset
        buffer += content
        index += 1
    builder._max_timestamp = max(builder._max_timestamp, now_ms)
    builder._last_offset = index - 1
    builder._num_records = records._next_offset = index
    return index - first


def _name(name: str) -> bytes:
    encoded = name.encode()
    return _varint(len(encoded)) + encoded


_known_name = lru_cache(maxsize=1024)(_name)


def _long_varint(value: int) -> bytes:
    written = bytearray()
    encode_varint(value, written.append)
    return bytes(written)


_SHORT = tuple(map(_long_varint, range(16_384)))


def _varint(value: int) -> bytes:
    """A length, index or time as a zigzag varint."""
    return _SHORT[value] if 0 <= value < len(_SHORT) else _long_varint(value)
