"""Exactly once: answers and the offsets of their jobs in one transaction, for readers that are read_committed.

An offset says of all jobs below it that they are done, so that an answer may be published only with those of all jobs
before it in its partition: what comes earlier is held until then.

`commit_transaction()` of kafka-python can report success for what was aborted. Every record's future is therefore
looked at before the offsets are sent, the transaction has to be over before the broker would have given it up, and a
producer that has failed once is replaced; where the group then stands is asked of the broker.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, FencedInstanceIdError, KafkaError, KafkaTimeoutError
from kafka.structs import MemberState

from consumer.delivery.addressed import Addressed, write_together
from consumer.delivery.bulk import BulkProducer
from consumer.delivery.connection import explained, fenced, for_transactions, not_allowed
from consumer.delivery.offsets import Offsets
from consumer.delivery.sink import Answered, AnswerT, SinkFailedError, close_producer, failed, written
from consumer.delivery.source import Source
from consumer.delivery.topics import Topic, Topics, check_topics
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named

FLUSH_SHARE = 2 / 3
"""Of a transaction's time, what its records may take to be acknowledged."""
BYTES = 8 * 1024 * 1024
"""Answers of so many bytes do not wait for more."""
REWIND_S = 5.0


@dataclass(slots=True, eq=False)
class _Held:
    record: Addressed
    job: Answered


class TransactionalSink:
    """`Sink` with a transactional producer: at most one transaction each `interval_s`, on the loop's thread."""

    topics: Topics

    def __init__(
        self,
        settings: Settings,
        client_id: str,
        *,
        source: Source,
        offsets: Offsets,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        # Two containers can have one host name and one process id, and would fence each other in turn.
        self._own_name = f"{client_id}-{uuid.uuid4().hex[:8]}"
        self._source = source
        self._offsets = offsets
        self._clock = clock
        self._interval_s = settings.transaction_interval_ms / 1000
        self._timeout_s = settings.transaction_timeout_s
        self._held: dict[tuple[int, int], dict[int, _Held]] = {}  # by partition and epoch, then by offset
        self._nbytes = 0
        self._due_at = 0.0
        self._producer: BulkProducer | None = None
        self.rebuild()

    @property
    def nbytes(self) -> int:
        """As `Sink.nbytes`."""
        return self._nbytes

    @property
    def waiting(self) -> bool:
        """As `Sink.waiting`."""
        return next(self._ready(), None) is not None

    @property
    def waiting_s(self) -> float:
        """As `Sink.waiting_s`: the loop itself waits for a transaction."""
        return 0.0

    def send(self, topic: Topic, answers: Sequence[AnswerT]) -> list[AnswerT]:
        """As `Sink.send`: they are held until their turn comes."""
        if self._producer is None:
            raise SinkFailedError("there is no producer")
        try:
            partitions = self._producer.partitions(topic.name)
        except KafkaError as error:
            raise failed(self._settings, topic.name, error) from error
        fitting, refused = written(topic, partitions, answers)
        for job, partition, record in fitting:
            place = job.record
            held = self._held.setdefault((place.partition, job.epoch), {})
            held[place.offset] = _Held(Addressed(topic.name, partition, record), job)
            self._nbytes += len(record)
        return refused

    def settle(self, *, flush: bool) -> None:
        """As `Sink.settle`; a transaction, where one is due."""
        now = self._clock()
        if not self._held or not (flush or now >= self._due_at or self._nbytes >= BYTES):
            return
        self._forget_passed()
        ready = list(self._ready())
        membership = self._source.membership
        if not ready or membership is None or membership.generation_id < 0 or membership.state != MemberState.STABLE:
            return  # without a generation nobody could tell this process from one whose place was taken
        self._due_at = now + self._interval_s
        self._transact(ready, membership)
        self._settled(ready)

    def rebuild(self) -> None:
        """As `Sink.rebuild`; also ends what an earlier producer of this name has begun."""
        self.close(timeout_s=0.5)
        self.topics = check_topics(self._settings, serving=True)
        limits = (self.topics.predictions.record_limit, self.topics.dead_letters.record_limit)
        name = f"{self._settings.group_id}-{self._settings.instance_id or self._own_name}"
        with explained(self._settings):
            producer = BulkProducer(
                **for_transactions(self._settings, self._client_id, limits, name=name, timeout_s=self._timeout_s)
            )
            try:
                producer.init_transactions()
            except BaseException:
                close_producer(producer, 0.5)
                raise
        if not self._source.rewind_to_committed(REWIND_S):
            close_producer(producer, 0.5)
            where = named(self._settings, "bootstrap_servers")
            raise FatalError(Exit.UNAVAILABLE, f"{where}: the group's offsets cannot be read")
        self._producer = producer

    def close(self, timeout_s: float) -> None:
        """As `Sink.close`."""
        producer, self._producer = self._producer, None
        self._held.clear()
        self._nbytes = 0
        if producer is not None:
            close_producer(producer, timeout_s)

    def _ready(self) -> Iterator[_Held]:
        """The answers that no job before them in their partition keeps back."""
        for (partition, epoch), answers in self._held.items():
            owned = self._offsets.of(partition)
            if owned is not None and owned.epoch == epoch:
                yield from (answers[offset] for offset in owned.leading(answers))

    def _transact(self, ready: list[_Held], membership: Any) -> None:
        """All or nothing; SinkFailedError: nobody here knows which."""
        done: Future[None] = Future()

        def work() -> None:
            try:
                self._publish(ready, membership)
            except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
                done.set_exception(error)
            else:
                done.set_result(None)

        self._offsets.uncertain = True
        # The client's calls that send offsets and commit know no time limit, and can wait for ever for a coordinator
        # that has died: the thread is then left behind with its producer.
        threading.Thread(target=work, name="transaction", daemon=True).start()
        try:
            done.result(self._timeout_s)
        except FencedInstanceIdError as error:
            raise fenced(self._settings) from error
        except AuthorizationError as error:
            raise not_allowed(self._settings, error) from error
        except TimeoutError:
            # Also where it is reported as committed after that: the broker may have given it up meanwhile.
            what = f"a transaction took more than the {self._timeout_s:g} s that the broker gives it"
            raise SinkFailedError(what) from None
        except (KafkaError, ValueError, TypeError) as error:
            raise SinkFailedError(f"a transaction: {type(error).__name__}") from error

    def _publish(self, ready: list[_Held], membership: Any) -> None:
        producer = self._producer
        assert producer is not None  # noqa: S101 - `send` has looked
        began = self._clock()
        write_together(
            producer,
            [answer.record for answer in ready],
            flush_s=FLUSH_SHARE * self._timeout_s,
            before_commit=lambda: producer.send_offsets_to_transaction(self._positions(ready), membership),
        )
        if self._clock() - began >= self._timeout_s:
            raise KafkaTimeoutError

    def _positions(self, ready: list[_Held]) -> dict[TopicPartition, OffsetAndMetadata]:
        last = {answer.job.record.partition: answer.job.record.offset for answer in ready}
        return {
            TopicPartition(self._settings.jobs_topic, partition): OffsetAndMetadata(offset + 1, "", -1)
            for partition, offset in last.items()
        }

    def _settled(self, ready: list[_Held]) -> None:
        committed = {}
        for answer in ready:
            job, record = answer.job, answer.job.record
            del self._held[record.partition, job.epoch][record.offset]
            self._nbytes -= len(answer.record.content)
            self._offsets.done(record.partition, job.epoch, record.offset, job.size)
            committed[record.partition] = record.offset + 1
        # `committable` may be further: the next job may begin after a gap. It is committed with that job.
        self._offsets.committed(committed)
        self._offsets.uncertain = False

    def _forget_passed(self) -> None:
        """Answers of assignments that have passed are somebody else's to give."""
        for partition, epoch in [place for place in self._held if not self._offsets.current(*place)]:
            self._nbytes -= sum(len(answer.record.content) for answer in self._held.pop((partition, epoch)).values())
