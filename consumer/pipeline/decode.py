"""Record -> Job, or the Failure that its headers, size, expiry or body earn, in the contract's order."""

from dataclasses import replace

from consumer.pipeline.expiry import NO_TIMESTAMP, deadline, expired
from consumer.pipeline.job import Job, Record
from schemas.codec import count_values, decode_request
from schemas.headers import Unopened, header_bytes, read_routing
from schemas.limits import Limits
from schemas.messages import Request, Routing
from schemas.reasons import Failure, Reason, RefusedError, Stage

# What kafka-python takes for a header beside its bytes: a pair, two objects, a place in a list.
HEADER_MEMORY = 192
# And for a value in `parameters` or an element of BYTES: an object, which may be an empty map, and its place.
OBJECT_MEMORY = 72

UNREAD = Failure(Reason.BAD_HEADER, Stage.DECODE, "the headers could not be read")


def decode(
    record: Record,
    epoch: int,
    *,
    now_ms: int,
    limits: Limits,
    default_model: str | None,
    timestamp_ms: int = NO_TIMESTAMP,
    max_age_ms: int | None = None,
) -> tuple[Job, Failure | None]:
    """Read a record's headers and body.

    `timestamp_ms` is the record's; a job whose record is older than `max_age_ms` is expired. None: none is.

    The contract's order decides which reason is given where several hold: header, size, expiry, model, body. A body
    that cannot be read is therefore kept in `Job.request`, to be told once the model is known to be there.
    """
    in_headers = header_bytes(record.headers)
    value = record.value
    size = _size(record, in_headers)
    try:
        routing = read_routing(record.headers)
    except RefusedError as refused:
        return Job(record, epoch, size, Routing(), UNREAD), Failure(refused.reason, Stage.DECODE, refused.message)
    if routing.model_key is None:
        if default_model is None:
            message = "the job has no model-key header and the consumer no LOADONCE_DEFAULT_MODEL"
            return Job(record, epoch, size, routing, UNREAD), Failure(Reason.MISSING_MODEL_KEY, Stage.ROUTE, message)
        routing = replace(routing, model_key=default_model)
    if len(record.headers) > limits.headers:
        message = f"{len(record.headers)} headers; {limits.headers} are allowed"
        return Job(record, epoch, size, routing, UNREAD), Failure(Reason.TOO_LARGE, Stage.DECODE, message)
    if in_headers > limits.header_bytes:
        message = f"{in_headers} bytes of headers; {limits.header_bytes} are allowed"
        return Job(record, epoch, size, routing, UNREAD), Failure(Reason.TOO_LARGE, Stage.DECODE, message)
    request: Request | Failure
    try:
        request = decode_request(value, routing.content_type, limits)
    except RefusedError as refused:
        request = Failure(refused.reason, Stage.DECODE, refused.message)
    else:
        size += _grown(request, len(value or b""))
    job = Job(record, epoch, size, routing, request, deadline_ms=deadline(routing, timestamp_ms, max_age_ms))
    if isinstance(request, Failure) and request.reason is Reason.TOO_LARGE:
        return job, request
    return job, expired(job, now_ms)


def unopened(record: Record, epoch: int) -> tuple[Job, Failure]:
    """A record of which nothing is known but its position, and why."""
    assert isinstance(record.headers, Unopened)  # noqa: S101 - the loop has looked
    return Job(record, epoch, 0, Routing(), UNREAD), record.headers.failure


def poisonous(record: Record, epoch: int) -> tuple[Job, Failure]:
    """A record that is not to be opened: it has ended the processes that did."""
    message = "the process that had this job, and no other in hand, ended without an answer"
    size = _size(record, header_bytes(record.headers))
    return Job(record, epoch, size, Routing(), UNREAD), Failure(Reason.POISON, Stage.PREDICT, message)


def _size(record: Record, in_headers: int) -> int:
    """The memory of a record, for the bound on what is in hand: of a header without a name most is its own."""
    return in_headers + HEADER_MEMORY * len(record.headers) + len(record.value or b"") + len(record.key or b"")


def _grown(request: Request, value_bytes: int) -> int:
    """The memory of a request beyond its value's, of which raw tensors are views: a number in JSON or an element of
    BYTES may take one byte there and many here."""
    in_arrays = 0
    for tensor in request.inputs:
        array = tensor.array
        in_arrays += OBJECT_MEMORY * array.size if array.dtype.hasobject else array.nbytes
    parameters = 0 if request.parameters is None else OBJECT_MEMORY * count_values(request.parameters)
    return max(0, in_arrays - value_bytes) + parameters
