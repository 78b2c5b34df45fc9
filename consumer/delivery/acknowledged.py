"""At least once: answers are sent as they come, and a job is done when the broker has acknowledged its answer."""

from collections import deque
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from consumer.delivery.connection import explained, for_producer
from consumer.delivery.dead_letters import record_size
from consumer.delivery.offsets import Offsets
from consumer.delivery.sink import Answered, SinkFailedError, close_producer, failed, partition_of, sendable
from consumer.delivery.topics import Topic, Topics, check_topics
from consumer.settings import Settings

# How old the oldest unacknowledged record may become: longer than a cluster takes to elect another leader (10 s were
# measured), shorter than anybody would wait for a producer that has wedged.
ACK_DEADLINE_S = 60.0


class AcknowledgedSink:
    """`Sink` with an idempotent producer; acknowledgements are taken in the order of sending."""

    topics: Topics

    def __init__(self, settings: Settings, client_id: str, *, offsets: Offsets, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._client_id = client_id
        self._offsets = offsets
        self._clock = clock
        self._sent: deque[tuple[Any, Answered, float, int]] = deque()
        self._nbytes = 0
        self._producer: Any = None
        self.rebuild()

    @property
    def nbytes(self) -> int:
        """As `Sink.nbytes`."""
        return self._nbytes

    @property
    def waiting(self) -> bool:
        """As `Sink.waiting`."""
        return bool(self._sent)

    @property
    def waiting_s(self) -> float:
        """As `Sink.waiting_s`."""
        return self._clock() - self._sent[0][2] if self._sent else 0.0

    def send(
        self, topic: Topic, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], job: Answered
    ) -> bool:
        """As `Sink.send`."""
        size = record_size(key, value, headers)
        if size > topic.record_limit:
            return False
        if self._producer is None:
            raise SinkFailedError("there is no producer")
        try:
            future = self._producer.send(
                topic.name,
                value=sendable(key, value),
                key=key,
                headers=headers,
                partition=partition_of(topic, key, job),
            )
        except MessageSizeTooLargeError:
            return False  # the producer is unharmed: it looked before it took the record
        except (KafkaError, ValueError, TypeError) as error:
            raise failed(self._settings, topic.name, error) from error
        self._sent.append((future, job, self._clock(), size))
        self._nbytes += size
        return True

    def settle(self, *, flush: bool) -> None:  # noqa: ARG002 - nothing is held back
        """As `Sink.settle`. SinkFailedError also where the oldest waits longer than ACK_DEADLINE_S."""
        sent, done = self._sent, self._offsets.done
        while sent and sent[0][0].is_done:
            future, job, _, size = sent[0]
            error = future.exception
            if error is not None:
                raise failed(self._settings, "a record was not delivered", error) from error
            sent.popleft()
            self._nbytes -= size
            done(job.record.partition, job.epoch, job.record.offset, job.size)
        if sent and self._clock() - sent[0][2] > ACK_DEADLINE_S:
            raise SinkFailedError(f"no acknowledgement for {ACK_DEADLINE_S:g} s")

    def rebuild(self) -> None:
        """As `Sink.rebuild`."""
        self.close(timeout_s=0.5)
        self.topics = check_topics(self._settings, serving=True)
        limits = (self.topics.predictions.record_limit, self.topics.dead_letters.record_limit)
        with explained(self._settings):
            self._producer = KafkaProducer(**for_producer(self._settings, self._client_id, limits))

    def close(self, timeout_s: float) -> None:
        """As `Sink.close`."""
        producer, self._producer = self._producer, None
        self._sent.clear()
        self._nbytes = 0
        if producer is not None:
            close_producer(producer, timeout_s)
