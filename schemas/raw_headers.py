"""Header names that are not UTF-8, which Kafka allows and kafka-python does not.

Left alone, one such name makes the whole batch it came in unreadable, the good jobs of other publishers' behind it
included. So the client's record parser is given a second try that keeps the name as bytes; the job is then refused by
itself (`bad-header`), and forwarded byte for byte.
"""

from typing import Any

from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from schemas.headers import RawName, RawNamed

_read = DefaultRecordBatch._read_msg


def keep_raw_header_names() -> None:
    """Teach this process's kafka-python to read such records. Once is enough; more often does no harm."""
    DefaultRecordBatch._read_msg = _read_msg


def _read_msg(batch: Any) -> Any:
    try:
        return _read(batch)
    except UnicodeDecodeError:
        return _read_raw(batch)


def _read_raw(batch: Any) -> Any:
    """One record of format v2, from where the batch stands, which is moved past it.

    Source: https://kafka.apache.org/documentation/#record. Lengths were checked by the broker; a slice past the end is
    caught by the record's own length.
    """
    buffer = batch._buffer
    length, position = decode_varint(buffer, batch._pos)
    end = position + length
    _, position = decode_varint(buffer, position)  # attributes, of which there are none
    timestamp_delta, position = decode_varint(buffer, position)
    offset_delta, position = decode_varint(buffer, position)
    key, position = _nullable_bytes(buffer, position)
    value, position = _nullable_bytes(buffer, position)
    count, position = decode_varint(buffer, position)
    headers = RawNamed()
    for _ in range(count):
        size, position = decode_varint(buffer, position)
        name = bytes(buffer[position : position + size])
        content, position = _nullable_bytes(buffer, position + size)
        headers.append((RawName.of(name), content))
    if position != end:
        raise ValueError("a record does not have the length that it states")
    batch._pos = position
    appended = batch.timestamp_type == batch.LOG_APPEND_TIME
    timestamp = batch.max_timestamp if appended else batch.first_timestamp + timestamp_delta
    make = ControlRecord if batch.is_control_batch else DefaultRecord
    return make(length, batch.base_offset + offset_delta, timestamp, batch.timestamp_type, key, value, headers)


def _nullable_bytes(buffer: Any, position: int) -> tuple[bytes | None, int]:
    size, position = decode_varint(buffer, position)
    if size < 0:
        return None, position
    return bytes(buffer[position : position + size]), position + size
