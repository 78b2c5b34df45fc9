"""At least once: answers are sent as they come, and a job is done when the broker has acknowledged its answer."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafka.errors import KafkaError

from consumer.delivery.bulk import BulkProducer, Sent
from consumer.delivery.connection import explained, for_producer
from consumer.delivery.offsets import Offsets
from consumer.delivery.sink import Answered, AnswerT, SinkFailedError, close_producer, failed, written
from consumer.delivery.topics import Topic, Topics, check_topics
from consumer.settings import Settings

# How old the oldest unacknowledged record may become: longer than a cluster takes to elect another leader (10 s were
# measured), shorter than anybody would wait for a producer that has wedged.
ACK_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Batch:
    """Answers that the broker acknowledges together."""

    sent: Sent
    jobs: Sequence[Answered]
    sent_at: float
    nbytes: int


class AcknowledgedSink:
    """`Sink` with an idempotent producer; acknowledgements are taken in the order of sending."""

    topics: Topics

    def __init__(self, settings: Settings, client_id: str, *, offsets: Offsets, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._client_id = client_id
        self._offsets = offsets
        self._clock = clock
        self._sent: deque[_Batch] = deque()
        self._nbytes = 0
        self._producer: BulkProducer | None = None
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
        return self._clock() - self._sent[0].sent_at if self._sent else 0.0

    def send(self, topic: Topic, answers: Sequence[AnswerT]) -> list[AnswerT]:
        """As `Sink.send`."""
        producer = self._producer
        if producer is None:
            raise SinkFailedError("there is no producer")
        try:
            fitting, refused = written(topic, producer.partitions(topic.name), answers)
            places: dict[int, tuple[list[Answered], list[bytes]]] = {}
            for job, partition, record in fitting:
                jobs, contents = places.setdefault(partition, ([], []))
                jobs.append(job)
                contents.append(record)
            for partition, (jobs, contents) in places.items():
                self._write(producer, topic.name, partition, jobs, contents)
        except (KafkaError, ValueError, TypeError) as error:
            raise failed(self._settings, topic.name, error) from error
        return refused

    def _write(
        self, producer: BulkProducer, topic: str, partition: int, jobs: list[Answered], contents: list[bytes]
    ) -> None:
        now, start = self._clock(), 0
        for sent in producer.write(topic, partition, contents):
            end = start + sent.count
            nbytes = sum(map(len, contents[start:end]))
            self._sent.append(_Batch(sent, jobs[start:end], now, nbytes))
            self._nbytes += nbytes
            start = end

    def settle(self, *, flush: bool) -> None:  # noqa: ARG002 - nothing is held back
        """As `Sink.settle`. SinkFailedError also where the oldest waits longer than ACK_DEADLINE_S."""
        waiting, done = self._sent, self._offsets.done
        while waiting and waiting[0].sent.done:
            batch = waiting[0]
            error = batch.sent.error
            if error is not None:
                raise failed(self._settings, "a record was not delivered", error) from error
            waiting.popleft()
            self._nbytes -= batch.nbytes
            for job in batch.jobs:
                done(job.record.partition, job.epoch, job.record.offset, job.size)
        if waiting and self._clock() - waiting[0].sent_at > ACK_DEADLINE_S:
            raise SinkFailedError(f"no acknowledgement for {ACK_DEADLINE_S:g} s")

    def rebuild(self) -> None:
        """As `Sink.rebuild`."""
        self.close(timeout_s=0.5)
        self.topics = check_topics(self._settings, serving=True)
        limits = (self.topics.predictions.record_limit, self.topics.dead_letters.record_limit)
        with explained(self._settings):
            self._producer = BulkProducer(**for_producer(self._settings, self._client_id, limits))

    def close(self, timeout_s: float) -> None:
        """As `Sink.close`."""
        producer, self._producer = self._producer, None
        self._sent.clear()
        self._nbytes = 0
        if producer is not None:
            close_producer(producer, timeout_s)
