"""Batches as a kafka-python consumer is made to read them: what Kafka allows and the client does not, and what the
client takes on trust.

A header name that is not UTF-8 makes a whole batch unreadable to the client, the good jobs of other publishers' behind
it included; here it is kept as bytes, and the job refused by itself (`bad-header`).

What a batch says of itself is its sender's word, as far as the broker does not look: how large it is once it is
decompressed, whether its checksums hold, and which offset each record has. An offset past the batch, believed, would be
committed, and the jobs between never read. The client raises once for such a batch, without saying where, and then
hangs; here each of its offsets that cannot be read is given as a record that was not opened, in its place.
"""

import math
import threading
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import decode_varint

from schemas.decompress import MOST_BYTES, NotDecompressedError, decompress
from schemas.headers import NO_TIMESTAMP, RawName, RawNamed, Unopened
from schemas.reasons import Failure, Reason, Stage

MAGIC = 2
"""Of the record format that has headers. Source: https://kafka.apache.org/documentation/#recordbatch"""
MOST_HEADERS = 65_536
"""A record may have so many: each takes two bytes there, and two hundred here."""
_LONG_OR_NEGATIVE = 0x81
"""In the first byte of a zigzag varint."""
_DENSEST = 7
"""Bytes that a record takes at the least: its length, attributes, two deltas, two sizes, a count."""


class _Allowance(threading.local):
    nbytes: float = math.inf


_allowance = _Allowance()


class EnoughError(Exception):
    """What may be decompressed at a time has been."""


class _NoRecordError(ValueError):
    """What stands where a record should; a message that says why."""


def read_with_care(consumer: KafkaConsumer) -> None:
    """Teach a consumer all this, before it polls."""
    consumer._fetcher.PartitionRecords = Fetched


def allow(nbytes: int) -> None:
    """Let this thread decompress so many bytes more, and what it begins before they are spent. Then a poll ends, as if
    nothing more had come; the next finds it where it was.

    A thread that was never told may decompress without end, a batch at a time.
    """
    _allowance.nbytes = nbytes


class Fetched(Fetcher.PartitionRecords):  # type: ignore[misc] # kafka-python has no types
    """What was fetched of a partition."""

    def take(self, n: int | None = None) -> list[ConsumerRecord]:
        """The next records; none, and what is left is fetched again, where enough was decompressed."""
        try:
            taken: list[ConsumerRecord] = super().take(n)
        except EnoughError:
            self.drain()
            return []
        return taken

    def _unpack_records(
        self, tp: TopicPartition, records: MemoryRecords, _key: object, _value: object
    ) -> Iterator[ConsumerRecord]:
        """As the client's; but it knows nothing of deserializers, and the client's own would look at each record five
        times more."""
        while (raw := records.next_batch()) is not None:
            if raw.magic < MAGIC:
                yield from self._unpack_legacy(tp, raw)
                continue
            batch = Batch(raw._buffer, tp.topic, tp.partition)
            self.leader_epoch = batch.leader_epoch
            if not self._is_to_be_skipped(batch):
                for record in batch:
                    self.next_fetch_offset = record.offset + 1
                    yield record
            if batch.problem is None:
                # A batch keeps its last offset where compaction has removed its last record.
                self.next_fetch_offset = batch.next_offset
        self.drain()

    def _unpack_legacy(self, tp: TopicPartition, batch: LegacyRecordBatch) -> Iterator[ConsumerRecord]:
        """Records of before Kafka 0.11, which have no headers."""
        for record in batch:
            self.next_fetch_offset = record.offset + 1
            timestamp = NO_TIMESTAMP if record.timestamp is None else record.timestamp
            yield _record(tp.topic, tp.partition, record.offset, timestamp, record.key, record.value, [])

    def _is_to_be_skipped(self, batch: "Batch") -> bool:
        """Whether it holds markers of transactions, or records of one that was aborted."""
        if batch.problem is not None:
            return False
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


class Batch(DefaultRecordBatch):  # type: ignore[misc] # kafka-python has no types
    """A batch whose records are all there: where they cannot be read, as records that were not opened. `problem` says
    why, once it is known."""

    __slots__ = ("_data", "_partition", "_topic", "problem")

    def __init__(self, buffer: Any, topic: str, partition: int) -> None:
        super().__init__(buffer)
        self._topic = topic
        self._partition = partition
        self._data = memoryview(buffer)[self.HEADER_STRUCT.size :]
        self.problem: str | None = None if self.validate_crc() else "the checksum is wrong"

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """Its records in the order of their offsets. EnoughError before the first."""
        offset = self.base_offset  # of the next record, at the least
        try:
            if self.problem is None:
                for record in self._records(self._opened()):
                    yield record
                    offset = record.offset + 1
        except NotDecompressedError as error:
            self.problem = f"what is compressed cannot be opened ({error})"
        except _NoRecordError as error:
            self.problem = str(error)
        except (ValueError, IndexError):
            self.problem = "a record's structure is wrong"
        if self.problem is not None:
            message = f"the record cannot be read: in its batch, {self.problem}"
            failure = Failure(Reason.BAD_HEADER, Stage.DECODE, message)
            for unopened in range(offset, self._end()):
                yield self._unopened(unopened, failure)

    def _opened(self) -> bytes:
        """The records' bytes. NotDecompressedError; EnoughError."""
        if self.compression_type == self.CODEC_NONE:
            return bytes(self._data)
        left = _allowance.nbytes
        if left <= 0:
            raise EnoughError
        _allowance.nbytes = left - MOST_BYTES  # whatever comes of it
        records = decompress(self.compression_type, bytes(self._data))
        _allowance.nbytes = left - len(records)
        return records

    def _end(self) -> int:
        """The offset after its last. Where the checksum is wrong, the number of records may be, too: no more than can
        be are believed."""
        most = MOST_BYTES if self.compression_type else self.size_in_bytes
        delta = int(self.last_offset_delta)
        return int(self.base_offset) + 1 + (delta if 0 <= delta <= most // _DENSEST else 0)

    def _records(self, buffer: bytes) -> Iterator[ConsumerRecord]:
        """Read records of format v2; ValueError or IndexError at the first that is none.

        Source: https://kafka.apache.org/documentation/#record. A slice past the end is caught by the record's length.
        """
        topic, partition = self._topic, self._partition
        position, size = 0, len(buffer)
        base, count, kind = self.base_offset, self._num_records, self.timestamp_type
        # Offsets of a batch grow, and reach its last one at the most; where none was compacted away there are no gaps.
        least, slack = base, self.last_offset_delta - (count - 1)
        appended = self.max_timestamp if kind == self.LOG_APPEND_TIME else None
        first_timestamp = self.first_timestamp
        for index in range(count):
            length, position = decode_varint(buffer, position)
            end = position + length
            position += 1  # attributes, of which there are none; one byte, whatever its highest bit says
            timestamp_delta, position = decode_varint(buffer, position)
            offset_delta, position = decode_varint(buffer, position)
            offset = base + offset_delta
            if not least <= offset <= base + index + slack or end > size:
                raise _NoRecordError("a record does not have the offset that its place in the batch gives it")
            least = offset + 1
            key, position = _nullable_bytes(buffer, position)
            value, position = _nullable_bytes(buffer, position)
            headers_count, position = decode_varint(buffer, position)
            if headers_count > MOST_HEADERS:
                message = f"{headers_count} headers; no more than {MOST_HEADERS} are ever read"
                yield self._unopened(offset, Failure(Reason.TOO_LARGE, Stage.DECODE, message))
                position = end
                continue
            headers, position = _headers(buffer, position, headers_count)
            if position != end:
                raise _NoRecordError("a record does not have the length that it states")
            timestamp = first_timestamp + timestamp_delta if appended is None else appended
            yield _record(topic, partition, offset, timestamp, key, value, headers)

    def _unopened(self, offset: int, failure: Failure) -> ConsumerRecord:
        return _record(self._topic, self._partition, offset, self.max_timestamp, None, None, Unopened(failure))


def _record(  # noqa: PLR0917 - the record's own
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
) -> ConsumerRecord:
    # The rest (epoch, kind of timestamp, checksum, sizes) is left as what is not known.
    return ConsumerRecord(topic, partition, -1, offset, timestamp, 0, key, value, headers, None, -1, -1, -1)


def _headers(buffer: bytes, position: int, count: int) -> tuple[list[tuple[str, bytes | None]], int]:
    if count < 0:
        raise ValueError("a record has less than no headers")
    headers: list[tuple[str, bytes | None]] = []
    raw = False
    for _ in range(count):
        name, position = _nullable_bytes(buffer, position)
        if name is None:
            raise ValueError("a header has less than no name")
        content, position = _nullable_bytes(buffer, position)
        try:
            headers.append((name.decode(), content))
        except UnicodeDecodeError:
            raw = True
            headers.append((RawName.of(name), content))
    return (RawNamed(headers) if raw else headers), position


def _nullable_bytes(buffer: bytes, position: int) -> tuple[bytes | None, int]:
    size = buffer[position]
    if size & _LONG_OR_NEGATIVE:
        size, position = decode_varint(buffer, position)
        if size < 0:
            return None, position
    else:
        size >>= 1
        position += 1
    end = position + size
    return buffer[position:end], end
