"""What travels over the topics, typed and frozen: a job's routing and request, a prediction, a dead letter.

The bodies are the Open Inference Protocol's (V2) requests and responses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from numpy.typing import NDArray

from schemas.reasons import Reason, Stage

RawHeaders = Sequence[tuple[str, bytes | None]]
"""A record's headers as a Kafka client hands them over: in order, repeats and null values included."""


class ContentType(StrEnum):
    """How a body is encoded; msgpack where a job does not say."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"


class Routing(NamedTuple):
    """What a job's headers ask for, checked against their patterns.

    `version` and `alias` exclude each other; with neither, the version being served is meant. `expires_at` is in
    milliseconds since the epoch. `correlation_id` is opaque. `traceparent` is None where the job's was malformed
    (W3C Trace Context: ignore it), and `tracestate` with it.
    """

    model_key: str | None = None
    version: int | None = None
    alias: str | None = None
    content_type: ContentType = ContentType.MSGPACK
    correlation_id: bytes | None = None
    expires_at: int | None = None
    traceparent: bytes | None = None
    tracestate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array, rows first.

    `array` is C-contiguous and little-endian with one of the contract's dtypes (`schemas.tensor.DTYPES`); BYTES is an
    object array of `bytes`. A decoded tensor is a read-only view of the body it came in wherever that is possible.
    """

    name: str
    array: NDArray[Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """A job's value. `outputs` names what to return (None: everything); `parameters` are echoed as they came."""

    inputs: tuple[Tensor, ...]
    id: str | None = None
    outputs: tuple[str, ...] | None = None
    parameters: Mapping[Any, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """A prediction's value. `model_version` is a decimal integer in a string, as the protocol has it."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str | None = None
    parameters: Mapping[Any, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands: `topic/partition/offset` on the wire."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A record of the predictions topic, decoded."""

    response: Response
    position: Position
    model_key: str
    model_version: int
    key: bytes | None = None
    correlation_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of the dead-letters topic: the job as it came, and why it has no prediction.

    `headers` are the job's own, without the `dlq-*` ones; `failed_at` is in milliseconds since the epoch.
    """

    reason: Reason
    stage: Stage
    message: str
    position: Position
    failed_at: int
    consumer: str
    attempts: int | None = None
    truncated: bool = False
    key: bytes | None = field(default=None, repr=False)
    value: bytes | None = field(default=None, repr=False)
    headers: RawHeaders = field(default=(), repr=False)
