"""Where answers go: predictions and dead letters, each done in `Offsets` once the broker has it.

A producer that failed once is never trusted again: kafka-python's idempotent producer can go on accepting records that
it will never send, and its transactional one can report commits that were none. The sink then raises SinkFailedError;
`rebuild` makes a new producer, and the loop replays.
"""

from typing import Any, Protocol

from kafka.errors import AuthorizationError, KafkaError

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

    def send(
        self, topic: Topic, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], job: Answered
    ) -> bool:
        """Take a job's answer; False where it does not fit the topic.

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


def partition_of(topic: Topic, key: bytes | None, job: Answered) -> int | None:
    """The output partition of a record without key; None: the producer's partitioner knows."""
    return job.record.partition % topic.partitions if key is None else None


def sendable(key: bytes | None, value: bytes | None) -> bytes | None:
    """The value; the client cannot send a record that has neither key nor value."""
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
