"""Answers -> the records of the predictions topic: rows sliced back to their jobs."""

from collections.abc import Iterator

from consumer.models.runtime import Loaded
from consumer.pipeline.job import Answer, Job
from consumer.pipeline.predict import Answers
from schemas import headers as names
from schemas.codec import encode_response
from schemas.headers import continue_trace
from schemas.messages import ContentType, Request, Response, Tensor
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
    version = str(model.version)
    fixed = [(names.MODEL_KEY, model.key.encode()), (names.MODEL_VERSION, version.encode())]
    start = 0
    for job, bound in zip(answers.jobs, answers.bounds, strict=True):
        stop = start + bound.rows
        request = job.request
        assert isinstance(request, Request)  # noqa: S101 - a job without one never reaches a batch
        response = Response(
            model_name=model.key,
            model_version=version,
            outputs=tuple([Tensor(name, outputs[name][start:stop]) for name in bound.outputs or outputs]),
            id=request.id,
            parameters=request.parameters,
        )
        start = stop
        if _least_size(response, job.routing.content_type) > limit:
            yield job, too_large(limit)
            continue
        try:
            value = encode_response(response, job.routing.content_type)
        except RefusedError as refused:
            yield job, Failure(refused.reason, Stage.PUBLISH, refused.message)
            continue
        yield job, Answer(job, job.record.key, value, [*fixed, *_echoed(job)])


def too_large(limit: int) -> Failure:
    """The prediction does not fit a record of `limit` bytes."""
    message = f"the prediction does not fit the {limit} bytes of a record; ask for fewer outputs or send fewer rows"
    return Failure(Reason.OUTPUT_TOO_LARGE, Stage.PUBLISH, message)


def _least_size(response: Response, content_type: ContentType) -> int:
    arrays = [tensor.array for tensor in response.outputs]
    if content_type is ContentType.JSON:
        return _JSON_ELEMENT * sum([array.size for array in arrays])
    return sum([array.size if array.dtype.hasobject else array.nbytes for array in arrays])


def _echoed(job: Job) -> Iterator[tuple[str, bytes]]:
    routing = job.routing
    yield names.CONTENT_TYPE, routing.content_type.encode()
    if routing.correlation_id is not None:
        yield names.CORRELATION_ID, routing.correlation_id
    if routing.traceparent is not None:
        yield names.TRACEPARENT, continue_trace(routing.traceparent)
        if routing.tracestate is not None:
            yield names.TRACESTATE, routing.tracestate
    record = job.record
    yield names.JOB_POSITION, f"{record.topic}/{record.partition}/{record.offset}".encode()
