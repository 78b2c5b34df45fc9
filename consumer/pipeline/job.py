"""A job on its way through the consumer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from consumer.models.signature import Signature
from schemas.messages import RawHeaders, Routing
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
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> RawHeaders: ...  # noqa: D102


Data = bytes | memoryview | NDArray[Any]
"""A tensor's elements: raw, little-endian and row-major; of BYTES, an array of `bytes` objects."""


@dataclass(frozen=True, slots=True)
class Bound:
    """How the inputs of a form are given to a model: `order` has, for each input of the model, its place in the form.

    `layout` has their shapes without the `rows` that all have: jobs of one layout can share a batch. `outputs` are the
    names to return, in order; None for all.
    """

    names: tuple[str, ...]
    dtypes: tuple[np.dtype[Any], ...]
    order: tuple[int, ...]
    rows: int
    layout: tuple[tuple[int, ...], ...]
    outputs: tuple[str, ...] | None


@dataclass(slots=True, eq=False)
class Form:
    """What a job asks of a model, less its numbers: most jobs of a topic are of few forms.

    What follows from the form alone is found out once: `bindings` has, by the id of a signature, that signature and
    what came of binding to it.
    """

    names: tuple[str, ...]
    datatypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[str, ...] | None
    bindings: dict[int, tuple[Signature, Bound | Failure]] = field(default_factory=dict, repr=False)


@dataclass(slots=True, eq=False)
class Job:
    """One record and what became of it so far. `epoch` names the assignment of its partition that it belongs to.

    `form` is a Failure where the body could not be read: a model that is not there is the reason given first. `data`
    are the elements of its tensors, in the order of the form; `id` and `parameters` are echoed. `deadline_ms`, in
    milliseconds since the epoch: past it, it is not predicted any more.
    """

    record: Record
    epoch: int
    size: int
    routing: Routing
    form: Form | Failure
    data: tuple[Data, ...] = field(default=(), repr=False)
    id: str | None = None
    parameters: Mapping[Any, Any] | None = field(default=None, repr=False)
    deadline_ms: int | None = None


@dataclass(slots=True, eq=False)
class Answer:
    """A job's prediction or dead letter: a record, less its topic."""

    job: Job
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: list[tuple[str, bytes]] = field(repr=False)
