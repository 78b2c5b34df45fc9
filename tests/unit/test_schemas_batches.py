"""Batches as kafka-python reads them in this process: what it does not check, it is made to."""

import gzip
from collections.abc import Iterator
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from kafka import TopicPartition
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from schemas import decompress
from schemas.batches import MOST_HEADERS, Batch, EnoughError, Fetched, allow
from schemas.headers import NO_TIMESTAMP, RawName, RawNamed, Unopened
from schemas.reasons import Reason
from tests.fuzz import wire

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
GOOD = wire.record(b"value", [(b"name", b"content")])
READ = [(0, b"value", [("name", b"content")])]


@pytest.fixture(autouse=True)
def _taught() -> Iterator[None]:
    allow(1 << 60)
    yield
    allow(1 << 60)


def records(batch: bytes) -> Iterator[Any]:
    yield from Batch(memoryview(batch), "jobs", 0)


def unopened(batch: bytes) -> dict[int, Reason | None]:
    """By offset, why records were not opened; None: they were."""
    found = {
        record.offset: record.headers.failure.reason if isinstance(record.headers, Unopened) else None
        for record in records(batch)
    }
    assert list(found) == sorted(found)
    return found


def read(batch: bytes) -> list[tuple[int, bytes, list[tuple[str, bytes]]]]:
    return [(record.offset, record.value, record.headers) for record in records(batch)]


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
def test_what_the_client_writes_is_read(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for offset in range(3):
        assert builder.append(offset, 1, None, bytes(50_000), [("name", b"content")])
    assert read(bytes(builder.build())) == [(offset, bytes(50_000), READ[0][2]) for offset in range(3)]


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        (GZIP, gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:])),
        (SNAPPY, snappy.compress(GOOD)),
        (LZ4, lz4.frame.compress(GOOD, content_checksum=True, store_size=False)),
        (ZSTD, zstandard.compress(GOOD[:9]) + zstandard.compress(GOOD[9:])),
        (ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(GOOD)),
    ],
    ids=["gzip of two members", "plain snappy", "lz4 with a checksum", "zstd of two frames", "zstd without a size"],
)
def test_what_other_clients_write_is_read(codec: int, data: bytes) -> None:
    assert read(wire.batch(data, 1, codec)) == READ


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        (GZIP, gzip.compress(GOOD) + b"more"),
        (GZIP, gzip.compress(GOOD)[:-4]),
        (GZIP, b""),
        (SNAPPY, b"\xff" * 40),
        (SNAPPY, b"\x82SNAPPY\0\0\0\0\1\0\0\0\1\xff\xff\xff\xff"),
        (LZ4, lz4.frame.compress(GOOD, content_checksum=True)[:-1] + b"\0"),
        (LZ4, lz4.frame.compress(GOOD)[:-4]),
        (ZSTD, zstandard.compress(GOOD) + b"more"),
        (7, GOOD),
    ],
    ids=[
        *("gzip and more", "gzip cut short", "no gzip", "no snappy", "snappy block past the end"),
        *("lz4 of a wrong checksum", "lz4 cut short", "zstd and more", "a codec that is none"),
    ],
)
def test_of_what_cannot_be_decompressed_each_record_is_there_unopened(codec: int, data: bytes) -> None:
    assert unopened(wire.batch(data, 3, codec)) == dict.fromkeys(range(3), Reason.BAD_HEADER)


def bombs() -> dict[int, bytes]:
    bomb = wire.record(bytes(decompress.MOST_BYTES))
    return {
        GZIP: gzip.compress(bomb, 1),
        SNAPPY: snappy.compress(bomb),
        LZ4: lz4.frame.compress(bomb),
        ZSTD: zstandard.compress(bomb),
    }


def test_a_bomb_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "MOST_BYTES", 1_000_000)
    for codec, bomb in bombs().items():
        [record] = records(wire.batch(bomb, 1, codec))
        assert "more than 1000000 bytes" in record.headers.failure.message


def test_a_batch_of_the_largest_size_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "MOST_BYTES", len(GOOD))
    for codec, data in ((GZIP, gzip.compress(GOOD)), (LZ4, lz4.frame.compress(GOOD)), (ZSTD, zstandard.compress(GOOD))):
        assert read(wire.batch(data, 1, codec)) == READ


@pytest.mark.parametrize(
    ("deltas", "good"),
    [
        ([100_000], 0),
        ([-1], 0),
        ([0, 0], 1),
        ([1, 0], 0),
        ([0, 2], 1),
        ([0, 1, 3], 2),
        ([0, -1, 2], 1),
    ],
)
def test_an_offset_that_is_not_its_records_own_is_not_believed(deltas: list[int], good: int) -> None:
    # Committed, it would take the group past jobs that nobody has read.
    lying = b"".join(wire.record(b"value", offset_delta=delta) for delta in deltas)
    wanted = {offset: None if offset < good else Reason.BAD_HEADER for offset in range(len(deltas))}
    assert unopened(wire.batch(lying, len(deltas))) == wanted


def test_where_records_were_compacted_away_what_cannot_be_read_begins_after_the_last_that_could() -> None:
    given = wire.record(b"value", offset_delta=2) + wire.record(b"value", offset_delta=1)
    assert unopened(wire.batch(given, 2, last=5)) == {2: None} | dict.fromkeys(range(3, 6), Reason.BAD_HEADER)


def test_of_a_batch_with_another_checksum_each_record_is_there_unopened() -> None:
    batch = bytearray(wire.batch(GOOD * 3, 3))
    batch[-1] ^= 1
    assert [type(record.headers) for record in records(bytes(batch))] == [Unopened] * 3


def test_a_number_of_records_that_cannot_be_is_not_believed_of_a_batch_with_another_checksum() -> None:
    batch = bytearray(wire.batch(GOOD, 1))
    batch[23] = 0x7F  # the last offset's delta: two thousand million
    assert [record.offset for record in records(bytes(batch))] == [0]


def test_a_record_of_too_many_headers_is_not_opened_and_those_behind_it_are() -> None:
    many = wire.record(b"value", [(b"", b"")] * (MOST_HEADERS + 1))
    most = wire.record(b"value", [(b"", b"")] * MOST_HEADERS, offset_delta=1)
    assert unopened(wire.batch(many + most, 2)) == {0: Reason.TOO_LARGE, 1: None}


def test_no_more_is_decompressed_at_a_time_than_was_allowed() -> None:
    batch = wire.batch(gzip.compress(GOOD), 1, GZIP)
    allow(len(GOOD) + 1)
    assert read(batch) == READ
    assert read(batch) == READ  # begun while some was left
    with pytest.raises(EnoughError):
        read(batch)
    assert read(wire.batch(GOOD, 1)) == READ  # nothing to decompress
    allow(1)
    assert read(batch) == READ


def test_attributes_are_one_byte_whatever_they_say() -> None:
    assert read(wire.batch(wire.record(b"value", [(b"name", b"content")], attributes=0xFF), 1)) == READ


def test_a_name_that_is_not_utf8_is_kept_as_bytes() -> None:
    batch = wire.batch(wire.record(b"value", [(b"good", b"1"), (b"\xff\xfe", b"2")]), 1)
    [(_, _, headers)] = read(batch)
    assert type(headers) is RawNamed
    assert [type(name) for name, _ in headers] == [str, RawName]
    assert [(name.encode(), content) for name, content in headers] == [(b"good", b"1"), (b"\xff\xfe", b"2")]


def test_a_structure_that_is_none_is_not_opened() -> None:
    for cut in range(1, len(GOOD)):
        assert unopened(wire.batch(GOOD[:cut], 1)) == {0: Reason.BAD_HEADER}


def fetched(data: bytes, fetch_offset: int = 0) -> Fetched:
    return Fetched(fetch_offset, TopicPartition("jobs", 3), MemoryRecords(data))


def test_what_is_fetched_is_read_batch_by_batch_and_goes_on_behind_what_was_compacted_away() -> None:
    part = fetched(wire.batch(GOOD, 1, last=4) + (5).to_bytes(8) + wire.batch(GOOD, 1)[8:])
    first = part.take(1)
    assert [(record.topic, record.partition, record.offset) for record in first] == [("jobs", 3, 0)]
    assert [record.offset for record in part.take(10)] == [5]
    assert part.next_fetch_offset == 6
    part = fetched(wire.batch(GOOD, 1, last=4))
    assert len(part.take(10)) == 1
    assert part.next_fetch_offset == 5


@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_the_formats_before_headers_are_read(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    builder.append(0, 7, b"key", b"value", [])
    [record] = fetched(bytes(builder.build())).take(10)
    assert (record.offset, record.key, record.value, record.headers) == (0, b"key", b"value", [])
    assert record.timestamp == (7 if magic else NO_TIMESTAMP)
