"""The publisher's client: jobs from numpy arrays, and their predictions back."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import NDArray

from schemas import headers as names
from schemas.connection import Connection, kafka_errors
from schemas.errors import BrokerUnavailableError, JobFailedError, PredictTimeoutError
from schemas.job import Job, JobOptions, JobRecord, job_record
from schemas.messages import ContentType, DeadLetter, Position, Prediction
from schemas.outcomes import DEAD_LETTERS_TOPIC, PREDICTIONS_TOPIC, OutcomeReader

JOBS_TOPIC = "inference.jobs"
MAX_RECORD_BYTES = 1024 * 1024
"""Below Kafka's default `max.message.bytes`; raise both where jobs are larger."""

_FORCED_CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class PublishedJob:
    """A job that the brokers have acknowledged: where it stands, and what its outcome will carry."""

    correlation_id: bytes
    position: Position


class JobClient:
    """Publishes jobs and, where asked, waits for their outcomes. One thread at a time.

    `security` holds kafka-python's `security_protocol`, `sasl_*` and `ssl_*` options. `request_timeout_s` bounds the
    connection and each acknowledgement; `max_record_bytes` must not exceed the jobs topic's `max.message.bytes`.
    BrokerUnavailableError, TopicMissingError: on entering.

    >>> with JobClient("localhost:9092") as client:
    ...     client.predict("digits", np.zeros((1, 8, 8, 1), np.float32))
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        jobs_topic: str = JOBS_TOPIC,
        predictions_topic: str = PREDICTIONS_TOPIC,
        dead_letters_topic: str = DEAD_LETTERS_TOPIC,
        content_type: ContentType = ContentType.MSGPACK,
        security: Mapping[str, Any] | None = None,
        request_timeout_s: float = 10.0,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._connection = Connection.to(bootstrap_servers, security, request_timeout_s)
        self._jobs_topic = jobs_topic
        self._content_type = content_type
        self._max_record_bytes = max_record_bytes
        self._outcomes = OutcomeReader(
            bootstrap_servers,
            predictions_topic=predictions_topic,
            dead_letters_topic=dead_letters_topic,
            security=security,
            request_timeout_s=request_timeout_s,
        )
        self._reading = ExitStack()  # holds the reader from the first `predict` on
        self._listens = False
        self._producer: Any = None

    def __enter__(self) -> Self:
        # A producer would look for a missing topic until its time is up, and tell it from a missing broker never.
        self._connection.require_topic(self._jobs_topic)
        self._producer = self._connection.producer(self._max_record_bytes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.close()
        self._close_producer()

    def publish(
        self, model_key: str | None, inputs: Mapping[str, NDArray[Any]] | NDArray[Any], **options: Unpack[JobOptions]
    ) -> PublishedJob:
        """Publish one job and wait until the brokers have it; `Job` says what the options mean.

        BrokerUnavailableError: no acknowledgement in time (the job may yet be published). RecordTooLargeError.
        ValueError, TypeError: what `schemas.job.job_record` cannot make a record of.
        """
        return self._publish(Job(model_key, inputs, **options), self._connection.request_timeout_s)

    def publish_many(self, jobs: Iterable[Job], *, max_outstanding: int = 1000) -> Iterator[PublishedJob]:
        """Publish jobs as the iterator is advanced, up to `max_outstanding` of them ahead of their acknowledgements.

        In order. Raises as `publish` does, at the first job that fails; those after it may be published or not.
        """
        waiting: deque[tuple[Any, JobRecord]] = deque()
        for job in jobs:
            if len(waiting) >= max_outstanding:
                yield self._acknowledged(*waiting.popleft(), self._connection.request_timeout_s)
            record = job_record(job, self._content_type, _now_ms())
            waiting.append((self._send(record), record))
        while waiting:
            yield self._acknowledged(*waiting.popleft(), self._connection.request_timeout_s)

    def predict(
        self,
        model_key: str | None,
        inputs: Mapping[str, NDArray[Any]] | NDArray[Any],
        *,
        timeout_s: float = 30.0,
        **options: Unpack[JobOptions],
    ) -> dict[str, NDArray[Any]]:
        """Publish one job and wait for its prediction: the outputs by name, read-only.

        JobFailedError: it became a dead letter. PredictTimeoutError: no outcome within `timeout_s` seconds.
        TopicMissingError: no topic to hear it from. And what `publish` raises.
        """
        deadline = time.monotonic() + timeout_s
        self._listen()
        published = self._publish(Job(model_key, inputs, **options), min(timeout_s, self._connection.request_timeout_s))
        while (left := deadline - time.monotonic()) > 0:
            for outcome in self._outcomes.poll(min(left, 0.2)):
                if not _is_of(outcome, published):
                    continue
                if isinstance(outcome, DeadLetter):
                    raise JobFailedError(outcome)
                return {tensor.name: tensor.array for tensor in outcome.response.outputs}
        raise PredictTimeoutError(
            f"no prediction and no dead letter of {published.position} within {timeout_s:g} s; "
            "check that a consumer runs on this topic, or allow more time"
        )

    def _listen(self) -> None:
        """Hear of every outcome from here on."""
        if self._listens:
            self._outcomes.from_now()
        else:
            self._reading.enter_context(self._outcomes)
            self._listens = True

    def _publish(self, job: Job, timeout_s: float) -> PublishedJob:
        record = job_record(job, self._content_type, _now_ms())
        return self._acknowledged(self._send(record), record, timeout_s)

    def _send(self, record: JobRecord) -> Any:
        with self._connection.explained():
            if self._producer is None:
                self._producer = self._connection.producer(self._max_record_bytes)
            return self._producer.send(self._jobs_topic, record.value, key=record.key, headers=record.headers)

    def _acknowledged(self, future: Any, record: JobRecord, timeout_s: float) -> PublishedJob:
        errors = kafka_errors()
        with self._connection.explained():
            try:
                metadata = future.get(timeout=timeout_s)
            except errors.KafkaTimeoutError:
                raise BrokerUnavailableError(
                    f"no acknowledgement within {timeout_s:g} s; the job may yet be published"
                ) from None
            except errors.KafkaError:
                self._close_producer()  # an idempotent producer does not survive a failed batch
                raise
        return PublishedJob(record.correlation_id, Position(metadata.topic, metadata.partition, metadata.offset))

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=self._connection.request_timeout_s)
        except kafka_errors().KafkaError:
            # Sends are pending and no broker answers. It then closes only by force, which it does not offer.
            producer._sender.force_close()
            producer._sender.join(_FORCED_CLOSE_S)
            producer.close(timeout=0)


def _is_of(outcome: Prediction | DeadLetter, published: PublishedJob) -> bool:
    if isinstance(outcome, Prediction):
        return outcome.correlation_id == published.correlation_id
    # A dead letter that did not fit its topic has lost the job's headers, but never its position.
    correlation_id = dict(outcome.headers).get(names.CORRELATION_ID)
    return correlation_id == published.correlation_id or outcome.position == published.position


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
