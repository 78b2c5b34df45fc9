"""Record -> Job, or the Failure that its headers, size, expiry or body earn, in the contract's order."""

from dataclasses import replace

from consumer.pipeline.job import Job, Record
from schemas.codec import decode_request
from schemas.headers import header_bytes, read_routing
from schemas.limits import Limits
from schemas.messages import Request, Routing
from schemas.reasons import Failure, Reason, RefusedError, Stage

UNREAD = Failure(Reason.BAD_HEADER, Stage.DECODE, "the headers could not be read")


def decode(
    record: Record, epoch: int, *, now_ms: int, limits: Limits, default_model: str | None
) -> tuple[Job, Failure | None]:
    """Read a record's headers and body.

    The contract's order decides which reason is given where several hold: header, size, expiry, model, body. A body
    that cannot be read is therefore kept in `Job.request`, to be told once the model is known to be there.
    """
    in_headers = header_bytes(record.headers)
    value = record.value
    size = in_headers + len(value or b"") + len(record.key or b"")
    try:
        routing = read_routing(record.headers)
    except RefusedError as refused:
        return Job(record, epoch, size, Routing(), UNREAD), Failure(refused.reason, Stage.DECODE, refused.message)
    if routing.model_key is None:
        if default_model is None:
            message = "the job has no model-key header and the consumer no LOADONCE_DEFAULT_MODEL"
            return Job(record, epoch, size, routing, UNREAD), Failure(Reason.MISSING_MODEL_KEY, Stage.ROUTE, message)
        routing = replace(routing, model_key=default_model)
    if in_headers > limits.header_bytes:
        message = f"{in_headers} bytes of headers; {limits.header_bytes} are allowed"
        return Job(record, epoch, size, routing, UNREAD), Failure(Reason.TOO_LARGE, Stage.DECODE, message)
    request: Request | Failure
    try:
        request = decode_request(value, routing.content_type, limits)
    except RefusedError as refused:
        request = Failure(refused.reason, Stage.DECODE, refused.message)
    job = Job(record, epoch, size, routing, request)
    if isinstance(request, Failure) and request.reason is Reason.TOO_LARGE:
        return job, request
    if routing.expires_at is not None and now_ms > routing.expires_at:
        late = now_ms - routing.expires_at
        return job, Failure(Reason.EXPIRED, Stage.DECODE, f"expires-at had passed by {late} ms when the job was read")
    return job, None


def unreadable(record: Record, epoch: int) -> tuple[Job, Failure]:
    """A record of which the client knows only the position."""
    message = "the Kafka client cannot parse the record: its checksum or its structure is wrong"
    return Job(record, epoch, 0, Routing(), UNREAD), Failure(Reason.BAD_HEADER, Stage.DECODE, message)
