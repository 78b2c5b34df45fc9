"""Record -> Job, or the Failure that its headers, size, expiry or body earn, in the contract's order."""

from consumer.pipeline.expiry import deadline, expired
from consumer.pipeline.forms import Forms, data_in, data_of
from consumer.pipeline.job import Job, Record
from schemas.codec import count_values
from schemas.headers import Unopened, header_bytes, read_routing
from schemas.limits import Limits
from schemas.messages import ContentType, Request, Routing
from schemas.reasons import Failure, Reason, RefusedError, Stage

# What kafka-python takes for a header beside its bytes: a pair, two objects, a place in a list.
HEADER_MEMORY = 192
# And for a value in `parameters` or an element of BYTES: an object, which may be an empty map, and its place.
OBJECT_MEMORY = 72

UNREAD = Failure(Reason.BAD_HEADER, Stage.DECODE, "the headers could not be read")


class Decoder:
    """Reads records' headers and bodies. A job whose record is older than `max_age_ms` is expired; None: none is."""

    def __init__(self, limits: Limits, default_model: str | None, max_age_ms: int | None = None) -> None:
        self._limits = limits
        self._default_model = default_model
        self._max_age_ms = max_age_ms
        self._forms = Forms()

    def read(self, record: Record, epoch: int, now_ms: int) -> tuple[Job, Failure | None]:
        """The job that a record holds, and why it fails already.

        The contract's order decides which reason is given where several hold: header, size, expiry, model, body. A body
        that cannot be read is therefore kept in `Job.form`, to be told once the model is known to be there.
        """
        if type(record.headers) is Unopened:
            return _unread(record, epoch, 0), record.headers.failure
        in_headers = header_bytes(record.headers)
        size = _size(record, in_headers)
        try:
            routing = read_routing(record.headers)
        except RefusedError as refused:
            return _unread(record, epoch, size), Failure(refused.reason, Stage.DECODE, refused.message)
        if routing.model_key is None:
            if self._default_model is None:
                message = "the job has no model-key header and the consumer no LOADONCE_DEFAULT_MODEL"
                return _unread(record, epoch, size), Failure(Reason.MISSING_MODEL_KEY, Stage.ROUTE, message)
            routing = routing._replace(model_key=self._default_model)
        job = Job(record, epoch, size, routing, UNREAD)
        too_large = _too_large(len(record.headers), in_headers, self._limits)
        if too_large is not None:
            return job, too_large
        if self._max_age_ms is not None or routing.expires_at is not None:
            job.deadline_ms = deadline(routing, record.timestamp, self._max_age_ms)
        failure = None if self._is_known(job) else self._read_body(job)
        if failure is None or failure.reason is not Reason.TOO_LARGE:
            failure = None if job.deadline_ms is None else expired(job, now_ms)
        return job, failure

    def _is_known(self, job: Job) -> bool:
        """Give the job what its body says, where it is of a known frame: what is around its data need not be read."""
        body = job.record.value
        if body is None or job.routing.content_type is not ContentType.MSGPACK:
            return False
        known = self._forms.known(body)
        if known is None:
            return False
        text = known.frame.text
        if text is not None:
            try:
                job.id = body[text[0] : text[1]].decode()
            except UnicodeDecodeError:
                return False
        job.form, job.data, job.parameters = known.form, data_in(body, known.frame), known.parameters
        return True

    def _read_body(self, job: Job) -> Failure | None:
        """Give the job what its body says, or why it says nothing."""
        body = job.record.value
        try:
            job.form, request = self._forms.read(body, job.routing.content_type, self._limits)
        except RefusedError as refused:
            job.form = Failure(refused.reason, Stage.DECODE, refused.message)
            return job.form
        job.data, job.id, job.parameters = data_of(request), request.id, request.parameters
        job.size += _grown(request, len(body or b""))
        return None


def _unread(record: Record, epoch: int, size: int) -> Job:
    return Job(record, epoch, size, Routing(), UNREAD)


def _too_large(headers: int, in_headers: int, limits: Limits) -> Failure | None:
    if headers > limits.headers:
        message = f"{headers} headers; {limits.headers} are allowed"
    elif in_headers > limits.header_bytes:
        message = f"{in_headers} bytes of headers; {limits.header_bytes} are allowed"
    else:
        return None
    return Failure(Reason.TOO_LARGE, Stage.DECODE, message)


def poisonous(record: Record, epoch: int) -> tuple[Job, Failure]:
    """A record that is not to be opened: it has ended the processes that did."""
    message = "the process that had this job, and no other in hand, ended without an answer"
    size = _size(record, header_bytes(record.headers))
    return _unread(record, epoch, size), Failure(Reason.POISON, Stage.PREDICT, message)


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
