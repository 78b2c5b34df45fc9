"""A job on its way through the consumer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from schemas.messages import RawHeaders, Request, Routing
from schemas.reasons import Failure


class Record(Protocol):
    """A Kafka record, as far as a job needs it; `kafka-python`'s ConsumerRecord is one."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> RawHeaders: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Bound:
    """A request's inputs in the order of a model's signature.

    `arrays` maps input name to array, all with `rows` rows; jobs of one `layout` (the shapes without their rows) can
    share a batch. `outputs` are the names to return, in order; None for all.
    """

    arrays: Mapping[str, NDArray[Any]]
    rows: int
    layout: tuple[tuple[int, ...], ...]
    outputs: tuple[str, ...] | None


@dataclass(slots=True, eq=False)
class Job:
    """One record and what became of it so far. `epoch` names the assignment of its partition that it belongs to.

    `request` holds a Failure where the body could not be read: a model that is not there is the reason given first.
    `deadline_ms`, in milliseconds since the epoch: past it, it is not predicted any more.
    """

    record: Record
    epoch: int
    size: int
    routing: Routing
    request: Request | Failure
    bound: Bound | None = None
    deadline_ms: int | None = None


@dataclass(slots=True, eq=False)
class Answer:
    """A job's prediction or dead letter: a record, less its topic."""

    job: Job
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: list[tuple[str, bytes]] = field(repr=False)
