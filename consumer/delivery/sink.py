"""Where answers go: predictions and dead letters, each done in `Offsets` once the broker has it.

A producer that failed once is never trusted again: kafka-python's idempotent producer can go on accepting records that
it will never send, and its transactional one can report commits that were none. The sink then raises SinkFailedError;
`rebuild` makes a new producer, and the loop replays.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from kafka.errors import AuthorizationError, KafkaError

from consumer.delivery.bulk import content, partition_of_key, size_alone
from consumer.delivery.connection import not_allowed
from consumer.delivery.topics import Topic, Topics
from consumer.settings import Settings


class SinkFailedError(Exception):
    """The producer cannot be trusted any more; what was sent and not acknowledged may or may not be in the log."""


class Place(Protocol):
    """Where a job stands, as far as delivery needs it."""

    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class Answered(Protocol):
    """A job that has its answer; `consumer.pipeline.job.Job` is one."""

    @property
    def record(self) -> Place: ...  # noqa: D102
    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


class Answer(Protocol):
    """A job's prediction or dead letter; `consumer.pipeline.job.Answer` is one."""

    @property
    def job(self) -> Answered: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


AnswerT = TypeVar("AnswerT", bound=Answer)


class Sink(Protocol):
    """What both ways of delivery offer the loop."""

    topics: Topics
    """The topics as they were when the producer was made; their limits are what it was made for."""

    @property
    def nbytes(self) -> int:
        """Bytes of answers that are not done."""

    @property
    def waiting(self) -> bool:
        """Whether `settle` may yet make jobs done without a further answer."""

    @property
    def waiting_s(self) -> float:
        """How long the oldest answer that was sent has waited for its acknowledgement."""

    def send(self, topic: Topic, answers: Sequence[AnswerT]) -> list[AnswerT]:
        """Take answers to jobs; those that do not fit the topic are given back.

        A keyed record goes where Kafka's default partitioner (murmur2) puts its key; one without goes to the partition
        that follows from the job's own: jobs of a partition then keep their order. SinkFailedError.
        """

    def settle(self, *, flush: bool) -> None:
        """Have the jobs whose answers have been taken since be done; with `flush`, as many as can be now.

        SinkFailedError. FatalError: the broker does not let this user write (77).
        """

    def rebuild(self) -> None:
        """Throw the producer away, with what it has not delivered, and make a new one for the topics as they are now.

        What is read from now on begins at the first job that is not done. FatalError: there is no broker or topic at
        present (69), or this user may not write (77).
        """

    def close(self, timeout_s: float) -> None:
        """Close the producer; what it still holds after `timeout_s` seconds is given up (and was never committed)."""


def written(
    topic: Topic, partitions: int, answers: Sequence[AnswerT]
) -> tuple[list[tuple[Answered, int, bytes]], list[AnswerT]]:
    """Each answer's job, output partition and `bulk.content`; and those that do not fit the topic."""
    fitting: list[tuple[Answered, int, bytes]] = []
    refused: list[AnswerT] = []
    for answer in answers:
        key, job = answer.key, answer.job
        record = content(key, answer.value, answer.headers)
        if size_alone(record) > topic.record_limit:
            refused.append(answer)
        else:
            partition = job.record.partition % partitions if key is None else partition_of_key(key, partitions)
            fitting.append((job, partition, record))
    return fitting, refused


def sendable(key: bytes | None, value: bytes | None) -> bytes | None:
    """The value; a record without key and value is not for every client."""
    return b"" if key is None and value is None else value


def failed(settings: Settings, what: str, error: BaseException) -> Exception:
    """What to raise for what a producer raised."""
    if isinstance(error, AuthorizationError):
        return not_allowed(settings, error)
    return SinkFailedError(f"{what}: {type(error).__name__}")


def close_producer(producer: Any, timeout_s: float) -> None:
    """Close it, by force where it does not close: it stays open then, and its thread with it, but sends no more."""
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        producer._sender.force_close()
        producer._sender.join(timeout_s)
