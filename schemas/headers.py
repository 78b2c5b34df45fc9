"""Record headers: their names, their patterns, and what a job's say."""

import os
import re
from functools import lru_cache

from schemas.messages import ContentType, Position, RawHeaders, Routing
from schemas.reasons import Failure, Reason, RefusedError

MODEL_KEY = "model-key"
MODEL_VERSION = "model-version"
CONTENT_TYPE = "content-type"
CORRELATION_ID = "correlation-id"
EXPIRES_AT = "expires-at"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

JOB_POSITION = "job-position"

DLQ_PREFIX = "dlq-"
DLQ_REASON = "dlq-reason"
DLQ_STAGE = "dlq-stage"
DLQ_MESSAGE = "dlq-message"
DLQ_POSITION = "dlq-position"
DLQ_FAILED_AT = "dlq-failed-at"
DLQ_ATTEMPTS = "dlq-attempts"
DLQ_CONSUMER = "dlq-consumer"
DLQ_TRUNCATED = "dlq-truncated"
DLQ_REPLAYS = "dlq-replays"

NO_TIMESTAMP = -1
"""Of a record that has none. Source: org.apache.kafka.common.record.RecordBatch.NO_TIMESTAMP."""

# Full matches, ASCII only, and the same text in Python's `re` and in JSON Schema (ECMA-262).
MODEL_KEY_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
VERSION_PATTERN = "[0-9]{1,18}"
ALIAS_PATTERN = "[A-Za-z][A-Za-z0-9._-]{0,63}"
MILLISECONDS_PATTERN = "[0-9]{1,15}"
POSITION_PATTERN = "[A-Za-z0-9._-]{1,249}/[0-9]{1,10}/[0-9]{1,19}"
"""A topic name as Kafka allows it (which has no `/`), a partition (int32) and an offset (int64)."""
TRACEPARENT_PATTERN = "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
"""W3C Trace Context: version, trace id, parent id, flags; a version after 00 may append fields."""

_MODEL_KEY = re.compile(MODEL_KEY_PATTERN.encode())
_VERSION = re.compile(VERSION_PATTERN.encode())
_ALIAS = re.compile(ALIAS_PATTERN.encode())
_MILLISECONDS = re.compile(MILLISECONDS_PATTERN.encode())
_POSITION = re.compile(POSITION_PATTERN.encode())
_TRACEPARENT = re.compile(TRACEPARENT_PATTERN.encode(), re.DOTALL)

_CONTENT_TYPES = {content_type.encode(): content_type for content_type in ContentType}
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16
_SAMPLED = 1


class RawName(str):
    """A header name that is not UTF-8: its bytes, invalid ones escaped, and given back by `encode` as they were."""

    __slots__ = ()

    @classmethod
    def of(cls, name: bytes) -> "RawName":
        """The name of these bytes."""
        return cls(name, "utf-8", "surrogateescape")

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:  # noqa: ARG002 - as str has it
        """The bytes, whatever encoding a client asks for."""
        return str.encode(self, "utf-8", "surrogateescape")


class RawNamed(list[tuple[str, bytes | None]]):
    """The headers of a record of which at least one name is a RawName."""

    __slots__ = ()


class Unopened(list[tuple[str, bytes | None]]):
    """The headers of a record that could not be read, of which there are none; `failure` says why."""

    __slots__ = ("failure",)

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self.failure = failure


def read_routing(headers: RawHeaders) -> Routing:
    """What a job's headers ask for. The last value of a repeated header stands; a null value reads as empty.

    RefusedError(bad-header) names the header and what it should match, never its value. A malformed `traceparent` is
    ignored, as W3C Trace Context has it.
    """
    if type(headers) is RawNamed:
        raise RefusedError(Reason.BAD_HEADER, "the name of a header is not UTF-8")
    given = dict(headers)
    traceparent = given.get(TRACEPARENT)
    if traceparent is not None and not _is_traceparent(traceparent):
        traceparent = None
    version, alias = _version(given[MODEL_VERSION] or b"") if MODEL_VERSION in given else (None, None)
    return Routing(  # by position: a third of the time
        _model_key(given[MODEL_KEY] or b"") if MODEL_KEY in given else None,
        version,
        alias,
        _content_type(given[CONTENT_TYPE] or b"") if CONTENT_TYPE in given else ContentType.MSGPACK,
        (given[CORRELATION_ID] or b"") if CORRELATION_ID in given else None,
        parse_milliseconds(EXPIRES_AT, given[EXPIRES_AT]) if EXPIRES_AT in given else None,
        traceparent,
        (given.get(TRACESTATE) or None) if traceparent is not None else None,
    )


def header_bytes(headers: RawHeaders) -> int:
    """How many bytes the names (as UTF-8) and values of the headers are."""
    size = 0
    for name, value in headers:
        size += len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))
        if value is not None:
            size += len(value)
    return size


def continue_trace(traceparent: bytes, span_id: int | None = None) -> bytes:
    """The `traceparent` of a new span under a valid one: same trace id and flags; a random span id where none is given.

    `span_id` is in 1 .. 2**64 - 1. Of a version after 00 only the sampled flag is known, and 00 is what goes out.
    """
    span = os.urandom(8).hex() if span_id is None else f"{span_id:016x}"
    flags = traceparent[53:55] if traceparent.startswith(b"00") else b"%02x" % (int(traceparent[53:55], 16) & _SAMPLED)
    return b"00-%b-%b-%b" % (traceparent[3:35], span.encode(), flags)


def parse_milliseconds(name: str, value: bytes | None) -> int:
    """The milliseconds since the epoch that header `name` holds. RefusedError(bad-header)."""
    if not value or not _MILLISECONDS.fullmatch(value):
        raise _bad_header(name, f"milliseconds since the epoch, {MILLISECONDS_PATTERN}")
    return int(value)


def parse_position(value: bytes | None) -> Position:
    """`topic/partition/offset` as it is in `job-position` and `dlq-position`. RefusedError(bad-header)."""
    if not value or not _POSITION.fullmatch(value):
        raise RefusedError(Reason.BAD_HEADER, "a position is not topic/partition/offset")
    topic, partition, offset = value.split(b"/")
    return Position(topic.decode(), int(partition), int(offset))


# The usual job repeats the values of the one before it, so that reading them is a look-up. Refusals are not cached, and
# what is accepted is short, so the caches stay small.


@lru_cache(maxsize=1024)
def _model_key(value: bytes) -> str:
    if not _MODEL_KEY.fullmatch(value):
        raise _bad_header(MODEL_KEY, MODEL_KEY_PATTERN)
    return value.decode()


@lru_cache(maxsize=1024)
def _version(value: bytes) -> tuple[int | None, str | None]:
    if _VERSION.fullmatch(value):
        return int(value), None
    if _ALIAS.fullmatch(value):
        return None, value.decode()
    raise _bad_header(MODEL_VERSION, f"a version {VERSION_PATTERN} or an alias {ALIAS_PATTERN}")


def _content_type(value: bytes) -> ContentType:
    try:
        return _CONTENT_TYPES[value]
    except KeyError:
        raise _bad_header(CONTENT_TYPE, " or ".join(ContentType)) from None


def _is_traceparent(value: bytes) -> bool:
    return (
        _TRACEPARENT.fullmatch(value) is not None
        and not value.startswith(b"ff")
        and (len(value) == 55 or not value.startswith(b"00"))
        and value[3:35] != _NO_TRACE
        and value[36:52] != _NO_SPAN
    )


def _bad_header(name: str, wanted: str) -> RefusedError:
    return RefusedError(Reason.BAD_HEADER, f"header {name} does not match: {wanted}")
