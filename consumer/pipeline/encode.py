"""Answers -> the records of the predictions topic: rows sliced back to their jobs."""

from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from consumer.models.runtime import Loaded
from consumer.pipeline.job import Answer, Bound, Job
from consumer.pipeline.predict import Answers
from schemas import headers as names
from schemas.codec import encode_response
from schemas.headers import continue_trace
from schemas.messages import ContentType, Response, Tensor
from schemas.msgpack_body import ResponseRows
from schemas.reasons import Failure, Reason, RefusedError, Stage

# A number takes at least this many characters in JSON, its comma included; in msgpack it takes its bytes.
_JSON_ELEMENT = 2


def encode(model: Loaded, answers: Answers, limit: int) -> Iterator[tuple[Job, Answer | Failure]]:
    """Every job of `answers`, in order, with its prediction or its failure.

    `limit` is what a record may have in bytes: a prediction that cannot fit is not encoded at all, since encoding
    gigabytes to find that out would stop the loop.
    """
    outputs = answers.outputs
    if isinstance(outputs, Failure):
        for job in answers.jobs:
            yield job, outputs
        return
    bodies, headers = _Bodies(model, outputs, limit), _Headers(model)
    start = 0
    for job, bound in zip(answers.jobs, answers.bounds, strict=True):
        stop = start + bound.rows
        value = bodies.of(job, bound, start, stop)
        start = stop
        if isinstance(value, Failure):
            yield job, value
        else:
            yield job, Answer(job, job.record.key, value, headers.of(job))


class _Bodies:
    """Of the predictions of one batch."""

    def __init__(self, model: Loaded, outputs: Mapping[str, NDArray[Any]], limit: int) -> None:
        self._name = model.key
        self._version = str(model.version)
        self._outputs = outputs
        self._limit = limit
        self._rows: dict[tuple[str, ...] | None, ResponseRows | None] = {}

    def of(self, job: Job, bound: Bound, start: int, stop: int) -> bytes | Failure:
        """The body of a job's prediction."""
        asked, content_type = bound.outputs, job.routing.content_type
        try:
            if content_type is ContentType.MSGPACK:
                rows = self._rows[asked] if asked in self._rows else self._rows_of(asked)
                if rows is not None:
                    if rows.row_bytes * bound.rows > self._limit:
                        return too_large(self._limit)
                    return rows.body(start, stop, job.id, job.parameters)
            response = Response(
                model_name=self._name,
                model_version=self._version,
                outputs=tuple([Tensor(name, self._outputs[name][start:stop]) for name in asked or self._outputs]),
                id=job.id,
                parameters=job.parameters,
            )
            if _least_size(response, content_type) > self._limit:
                return too_large(self._limit)
            return encode_response(response, content_type)
        except RefusedError as refused:
            return Failure(refused.reason, Stage.PUBLISH, refused.message)

    def _rows_of(self, asked: tuple[str, ...] | None) -> ResponseRows | None:
        """What writes these outputs without looking at each; None where some are BYTES."""
        outputs = self._outputs if asked is None else {name: self._outputs[name] for name in asked}
        plain = not any(array.dtype.hasobject for array in outputs.values())
        rows = self._rows[asked] = ResponseRows(self._name, self._version, outputs) if plain else None
        return rows


def too_large(limit: int) -> Failure:
    """The prediction does not fit a record of `limit` bytes."""
    message = f"the prediction does not fit the {limit} bytes of a record; ask for fewer outputs or send fewer rows"
    return Failure(Reason.OUTPUT_TOO_LARGE, Stage.PUBLISH, message)


def _least_size(response: Response, content_type: ContentType) -> int:
    arrays = [tensor.array for tensor in response.outputs]
    if content_type is ContentType.JSON:
        return _JSON_ELEMENT * sum([array.size for array in arrays])
    return sum([array.size if array.dtype.hasobject else array.nbytes for array in arrays])


class _Headers:
    """Of the predictions of one batch."""

    def __init__(self, model: Loaded) -> None:
        version = str(model.version).encode()
        self._same = {
            content_type: [
                (names.MODEL_KEY, model.key.encode()),
                (names.MODEL_VERSION, version),
                (names.CONTENT_TYPE, content_type.encode()),
            ]
            for content_type in ContentType
        }
        self._places: dict[int, bytes] = {}

    def of(self, job: Job) -> list[tuple[str, bytes]]:
        """What says whose prediction it is, and what is echoed."""
        routing, record = job.routing, job.record
        headers = self._same[routing.content_type].copy()
        if routing.correlation_id is not None:
            headers.append((names.CORRELATION_ID, routing.correlation_id))
        if routing.traceparent is not None:
            headers.append((names.TRACEPARENT, continue_trace(routing.traceparent)))
            if routing.tracestate is not None:
                headers.append((names.TRACESTATE, routing.tracestate))
        partition = record.partition
        if partition not in self._places:
            self._places[partition] = f"{record.topic}/{partition}/".encode()
        headers.append((names.JOB_POSITION, self._places[partition] + b"%d" % record.offset))
        return headers
