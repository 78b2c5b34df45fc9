"""A job as a publisher writes it, and the record it becomes."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from numpy.typing import NDArray

from schemas import headers as names
from schemas.codec import encode_request
from schemas.headers import read_routing
from schemas.messages import ContentType, Request
from schemas.tensor import tensor_from_array

INPUT = "input"
"""The name of a tensor that was given none; a model of one input takes its tensor by any name."""


class JobOptions(TypedDict, total=False):
    """What may be said of a job beside its model and inputs; `Job` says what each means."""

    version: int | str | None
    id: str | None
    key: bytes | None
    correlation_id: str | bytes | None
    expires_in_s: float | None
    outputs: Sequence[str] | None
    parameters: Mapping[str, Any] | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Job:
    """A job to publish.

    `model_key` None means the consumer's default model. `inputs` are arrays by name, or one array alone, rows first;
    nothing is cast: a float64 array is FP64. `version` is a number or an alias. `id` and `parameters` come back in the
    prediction's value, `key` as its key, `correlation_id` as its header (None: a new one). `expires_in_s` counts from
    publishing. `outputs` names what to return (None: everything). `headers` are added after the contract's own.
    """

    model_key: str | None
    inputs: Mapping[str, NDArray[Any]] | NDArray[Any]
    version: int | str | None = None
    id: str | None = None
    key: bytes | None = None
    correlation_id: str | bytes | None = None
    expires_in_s: float | None = None
    outputs: Sequence[str] | None = None
    parameters: Mapping[str, Any] | None = field(default=None, repr=False)
    headers: Sequence[tuple[str, bytes]] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job ready to be sent, less its topic."""

    key: bytes | None
    value: bytes = field(repr=False)
    headers: list[tuple[str, bytes]] = field(repr=False)
    correlation_id: bytes


def job_record(job: Job, content_type: ContentType, now_ms: int) -> JobRecord:
    """The record of a job. `now_ms` is milliseconds since the epoch.

    ValueError: no inputs, a dtype that the contract does not have. RefusedError (a ValueError): a header that does not
    match its pattern, text in JSON that is not UTF-8. TypeError: parameters that the encoding cannot carry.
    """
    correlation_id = job.correlation_id if job.correlation_id is not None else uuid.uuid4().hex
    if isinstance(correlation_id, str):
        correlation_id = correlation_id.encode()
    headers = [(names.CONTENT_TYPE, content_type.encode()), (names.CORRELATION_ID, correlation_id)]
    if job.model_key is not None:
        headers.append((names.MODEL_KEY, job.model_key.encode()))
    if job.version is not None:
        headers.append((names.MODEL_VERSION, str(job.version).encode()))
    if job.expires_in_s is not None:
        headers.append((names.EXPIRES_AT, b"%d" % (now_ms + round(job.expires_in_s * 1000))))
    headers += job.headers
    routing = read_routing(headers)
    return JobRecord(job.key, encode_request(_request(job), routing.content_type), headers, correlation_id)


def _request(job: Job) -> Request:
    inputs = job.inputs if isinstance(job.inputs, Mapping) else {INPUT: job.inputs}
    if not inputs:
        raise ValueError("a job needs at least one input")
    return Request(
        inputs=tuple([tensor_from_array(name, array) for name, array in inputs.items()]),
        id=job.id,
        outputs=None if job.outputs is None else tuple(job.outputs),
        parameters=job.parameters,
    )
