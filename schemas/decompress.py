"""Compressed batches, opened with a bound: a megabyte on the wire can be gigabytes in memory, and kafka-python opens
whatever comes."""

import gzip
import io
from typing import Any

from kafka import codec as codecs

MOST_BYTES = 64 * 1024 * 1024
"""A batch may have so many bytes once it is decompressed. Producers bound their batches before they compress them: 16
KiB (Java's batch.size) to 1 MB (librdkafka's), or one record larger than that."""

_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4  # https://kafka.apache.org/documentation/#recordbatch
_XERIAL_HEADER = 16
_CHUNK = 1 << 20


class NotDecompressedError(ValueError):
    """The data is not what its codec makes, or more than MOST_BYTES."""


def decompress(codec: int, data: bytes) -> bytes:
    """The records of a batch. NotDecompressedError, and nothing else."""
    try:
        found = _DECOMPRESS[codec](data)
    except NotDecompressedError:
        raise
    except Exception as error:  # each of the libraries has errors of its own
        raise NotDecompressedError(type(error).__name__) from error
    if len(found) > MOST_BYTES:
        raise NotDecompressedError(f"more than {MOST_BYTES} bytes")
    return found


def _gzip(data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        return _read(stream)


def _zstd(data: bytes) -> bytes:
    with codecs.zstd.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as stream:
        return _read(stream)


def _lz4(data: bytes) -> bytes:
    decompressor = codecs.lz4.LZ4FrameDecompressor()
    found: bytes = decompressor.decompress(data, MOST_BYTES + 1)
    if not decompressor.eof and len(found) <= MOST_BYTES:
        raise EOFError
    return found


def _snappy(data: bytes) -> bytes:
    if not codecs._detect_xerial_stream(data):
        _within(_snappy_length(data))
        return bytes(codecs.snappy.decompress(data))
    found: list[bytes] = []
    size, at = 0, _XERIAL_HEADER
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        block = data[at + 4 : end]
        size += _snappy_length(block)
        _within(size)
        found.append(codecs.snappy.decompress(block))
        at = end
    return b"".join(found)


def _snappy_length(block: bytes) -> int:
    """What a block says to be: a varint at its beginning. Source: google/snappy, format_description.txt."""
    length = 0
    for index, byte in enumerate(block[:5]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    return length


def _within(size: int) -> None:
    if size > MOST_BYTES:
        raise NotDecompressedError(f"more than {MOST_BYTES} bytes")


def _read(stream: Any) -> bytes:
    """All of it, but not more than a chunk past MOST_BYTES."""
    chunks: list[bytes] = []
    size = 0
    while size <= MOST_BYTES and (chunk := stream.read(_CHUNK)):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


_DECOMPRESS = {_GZIP: _gzip, _SNAPPY: _snappy, _LZ4: _lz4, _ZSTD: _zstd}
