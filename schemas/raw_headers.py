"""What Kafka allows in a batch and kafka-python does not, or takes on trust.

A header name that is not UTF-8, left alone, makes the whole batch it came in unreadable, the good jobs of other
publishers' behind it included. So the client's record parser is given a second try that keeps the name as bytes; the
job is then refused by itself (`bad-header`), and forwarded byte for byte.

What a batch says of itself is its sender's word, as far as the broker does not look: how large it is once it is
decompressed, whether its checksums hold, and which offset each record has. An offset past the batch, believed, would be
committed, and the jobs between never read. Whatever is not so is a CorruptRecordError, which the source passes by.
"""

from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from schemas.decompress import NotDecompressedError, decompress
from schemas.headers import RawName, RawNamed

_read = DefaultRecordBatch._read_msg


def keep_raw_header_names() -> None:
    """Teach this process's kafka-python all this. Once is enough; more often does no harm."""
    DefaultRecordBatch._read_msg = _read_msg
    DefaultRecordBatch._maybe_uncompress = _uncompress


def _read_msg(batch: Any) -> Any:
    start = batch._pos
    try:
        record = _read(batch)
    except (CorruptRecordError, ValueError, IndexError):
        batch._pos = start
        record = _read_raw(batch)
    # Offsets of a batch grow, and reach its last one at the most; where none was compacted away they have no gaps.
    header, index = batch._header_data, batch._next_record_index
    first, last, count = header[0], header[0] + header[6], header[12]
    if not first + index <= record.offset <= last - (count - 1 - index):
        raise CorruptRecordError("a record does not have the offset that its place in the batch gives it")
    return record


def _read_raw(batch: Any) -> Any:
    """One record of format v2, from where the batch stands, which is moved past it.

    Source: https://kafka.apache.org/documentation/#record. Lengths were checked by the broker; a slice past the end is
    caught by the record's own length.
    """
    buffer = batch._buffer
    length, position = decode_varint(buffer, batch._pos)
    end = position + length
    position += 1  # attributes, of which there are none; one byte, whatever its highest bit says
    timestamp_delta, position = decode_varint(buffer, position)
    offset_delta, position = decode_varint(buffer, position)
    key, position = _nullable_bytes(buffer, position)
    value, position = _nullable_bytes(buffer, position)
    count, position = decode_varint(buffer, position)
    if count < 0:
        raise ValueError("a record has less than no headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, position = decode_varint(buffer, position)
        if size < 0:
            raise ValueError("a header has less than no name")
        name = _name(bytes(buffer[position : position + size]))
        content, position = _nullable_bytes(buffer, position + size)
        headers.append((name, content))
    if position != end:
        raise ValueError("a record does not have the length that it states")
    batch._pos = position
    appended = batch.timestamp_type == batch.LOG_APPEND_TIME
    timestamp = batch.max_timestamp if appended else batch.first_timestamp + timestamp_delta
    if any(type(name) is RawName for name, _ in headers):
        headers = RawNamed(headers)
    make = ControlRecord if batch.is_control_batch else DefaultRecord
    return make(length, batch.base_offset + offset_delta, timestamp, batch.timestamp_type, key, value, headers)


def _name(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return RawName.of(data)


def _nullable_bytes(buffer: Any, position: int) -> tuple[bytes | None, int]:
    size, position = decode_varint(buffer, position)
    if size < 0:
        return None, position
    return bytes(buffer[position : position + size]), position + size


def _uncompress(batch: Any) -> None:
    if not batch._decompressed and batch.compression_type != batch.CODEC_NONE:
        try:
            records = decompress(batch.compression_type, bytes(memoryview(batch._buffer)[batch._pos :]))
        except NotDecompressedError as error:
            raise CorruptRecordError(f"a batch cannot be decompressed: {error}") from error
        batch._buffer, batch._pos = bytearray(records), 0
    batch._decompressed = True
