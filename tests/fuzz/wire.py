"""Batches as no client library writes them, and a produce request to send them by.

Source: https://kafka.apache.org/documentation/#recordbatch and https://kafka.apache.org/protocol#The_Messages_Produce
"""

import socket
import struct
import time
from collections.abc import Sequence

from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

_PRODUCE, _VERSION = 0, 7


def varint(value: int) -> bytes:
    """Zigzag, seven bits a byte."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(
    value: bytes, headers: Sequence[tuple[bytes, bytes]] = (), *, offset_delta: int = 0, attributes: int = 0
) -> bytes:
    """A record without a key."""
    body = bytes([attributes]) + varint(0) + varint(offset_delta) + varint(-1) + varint(len(value)) + value
    body += varint(len(headers))
    for name, content in headers:
        body += varint(len(name)) + name + varint(len(content)) + content
    return varint(len(body)) + body


def batch(records: bytes, count: int, codec: int = 0, last: int | None = None) -> bytes:
    """A batch of records, which are compressed already where there is a codec. `last`: the delta of its last offset."""
    delta = count - 1 if last is None else last
    now_ms = int(time.time() * 1000)  # what is older than its topic's retention goes while a test reads it
    after_crc = struct.pack(">hiqqqhii", codec, delta, now_ms, now_ms, -1, -1, -1, count) + records
    head = struct.pack(">ib", -1, 2) + struct.pack(">I", calc_crc32c(after_crc))
    whole = struct.pack(">qi", 0, len(head) + len(after_crc)) + head + after_crc
    assert DefaultRecordBatch(whole).validate_crc()
    return whole


def produce(bootstrap: str, topic: str, partition: int, records: bytes) -> int:
    """Send a batch; the broker's error code, 0 where it took it."""
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    name = topic.encode()
    body = struct.pack(">hhih", _PRODUCE, _VERSION, 1, -1)  # no client id
    body += struct.pack(">hhi", -1, -1, 10_000)  # no transaction, acks of all, ten seconds
    body += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iii", 1, partition, len(records)) + records
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", answer.read(4))
        found = answer.read(size)
    at = 4 + 4 + 2 + len(name) + 4 + 4  # correlation, topics, name, partitions, index
    (code,) = struct.unpack_from(">h", found, at)
    return int(code)
