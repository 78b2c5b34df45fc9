"""A failed job -> the record of the dead-letters topic, made to fit it."""

from collections.abc import Iterator

from schemas.headers import header_bytes
from schemas.messages import RawHeaders
from schemas.reasons import Failure
from schemas.records import dead_letter_headers

# Upper bound on what Kafka's record format v2 and its batch add: a batch header of 61 bytes, varints of at most 5 or 10
# bytes for length, timestamp, offset, key, value and header count, and two varints a header.
# Source: https://kafka.apache.org/documentation/#messageformat
BATCH_OVERHEAD = 61 + 1 + 5 + 10 + 5 + 5 + 5 + 5
HEADER_OVERHEAD = 5 + 5


def record_size(key: bytes | None, value: bytes | None, headers: RawHeaders) -> int:
    """Bytes a record takes at the most, alone in its batch."""
    return len(key or b"") + len(value or b"") + header_bytes(headers) + HEADER_OVERHEAD * len(headers) + BATCH_OVERHEAD


def dead_letter(
    *,
    key: bytes | None,
    value: bytes | None,
    headers: RawHeaders,
    position: str,
    failure: Failure,
    failed_at_ms: int,
    consumer: str,
    limit: int,
    whole: bool = True,
) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the dead letter, at most `limit` bytes as a record.

    The job byte for byte. Where that does not fit, its value is left out and `dlq-truncated` says so; where its headers
    and key alone do not fit, they are left out too: the position says where the job stands. `whole` is False where
    that is all that is known of the job.
    """

    def candidates() -> Iterator[tuple[bytes | None, bytes | None, RawHeaders, bool]]:
        yield key, value, headers, not whole
        yield key, b"", headers, True
        yield key, b"", (), True

    for its_key, its_value, its_headers, truncated in candidates():
        dlq = dead_letter_headers(
            its_headers,
            failure,
            position=position,
            failed_at_ms=failed_at_ms,
            consumer=consumer,
            truncated=truncated,
        )
        if record_size(its_key, its_value, dlq) <= limit:
            return its_key, its_value, dlq
    return None, b"", dlq
