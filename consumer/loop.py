"""The loop: while running: poll -> decode -> route -> batch -> predict -> publish -> commit.

Everything here runs on one thread, the only one that calls the Kafka clients. TensorFlow runs on the inference thread,
models are opened on the loader's; the loop waits for neither.
"""

from collections.abc import Callable, Iterable
from typing import Any

from consumer.collector import Collector
from consumer.deadline import Deadline
from consumer.delivery.caution import Caution
from consumer.delivery.dead_letters import dead_letter
from consumer.delivery.offsets import Offsets
from consumer.delivery.pressure import Pressure
from consumer.delivery.sink import Sink, SinkFailedError, sendable
from consumer.delivery.source import Source
from consumer.events import LoopEvents
from consumer.exits import Exit, FatalError
from consumer.inference import Inference, Predicted
from consumer.models.serving import Serving
from consumer.pipeline.batch import Batch, Batcher
from consumer.pipeline.breaker import Breaker
from consumer.pipeline.decode import Decoder, poisonous
from consumer.pipeline.encode import encode, too_large
from consumer.pipeline.expiry import sift
from consumer.pipeline.job import Answer, Job
from consumer.pipeline.parking import Parking
from consumer.pipeline.route import Router
from consumer.settings import Settings
from schemas.headers import Unopened
from schemas.reasons import Failure

IDLE_S = 0.2  # poll() cannot be woken: a stop is noticed this late
JOIN_S = 0.5  # polls of a few milliseconds never get kafka-python through a rebalance, however many there are
BUSY_S = 0.005  # how long to wait for the inference thread, a model or an acknowledgement before looking elsewhere
COMMIT_S = 5.0  # how long a commit may take; without a broker it takes that long
LAST_COMMIT_S = 1.0  # what the last one gets, however late it is
LAG_S = 5.0  # between two questions how far behind this process is, which also tell whether a broker answers
LAG_TIMEOUT_S = 1.0
REVIVE_S = 2.0  # between two tries to make a producer


class Loop:
    """Jobs in, exactly one prediction or dead letter each out."""

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        sink: Sink,
        offsets: Offsets,
        caution: Caution,
        parking: Parking,
        serving: Serving,
        inference: Inference,
        collector: Collector,
        events: LoopEvents,
        name: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._decoder = Decoder(settings.limits, settings.default_model, int(settings.max_job_age_s * 1000) or None)
        self._source = source
        self._sink = sink
        self._offsets = offsets
        self._caution = caution
        self._parking = parking
        self._serving = serving
        self._inference = inference
        self._collector = collector
        self._events = events
        self._name = name
        self._clock = clock
        self._wall_clock = wall_clock
        self._batcher = Batcher(max_rows=settings.max_batch_rows, max_delay_s=settings.max_batch_delay_ms / 1000)
        self._router = Router(serving.resolve, parking, self._batcher, bury=self._bury, clock=clock)
        self._too_many_jobs = Pressure(settings.max_in_flight_jobs)
        self._too_many_bytes = Pressure(settings.max_in_flight_bytes)
        self._too_many_rows = Pressure(settings.max_in_flight_rows)
        self._too_many_parked = Pressure(settings.max_parked_jobs)
        self._breaker = Breaker(settings.dead_letter_limit, settings.dead_letter_window_s, clock)
        self._reading = True
        self._sending = True
        self._deadline: Deadline | None = None  # of the drain, once there is one
        self._next_commit = 0.0
        self._next_revival = 0.0
        self._buried = 0
        self._circuit = self._breaker.circuit
        self._next_lag = 0.0
        self._told: tuple[list[int], bool] | None = None

    def run(self, stopping: Callable[[], bool], refreshing: Callable[[], bool]) -> None:
        """Go round until `stopping`, then finish what is in hand within DRAIN_S, and commit it.

        `refreshing`: whether the model store is to be looked at now.
        """
        while not stopping():
            if refreshing():
                self._serving.refresh()
            self.turn()
        self._drain()

    def turn(self) -> None:
        """Once round."""
        if not self._sending and not self._deadline:
            self._revive()  # not where it has just failed: a stop that was asked for meanwhile comes first
        try:
            polled = self._source.poll(self._patience(), self._breaker.allowance)
            idle = not (self._inference.pending or len(self._batcher))
            polled, ended = self._caution.pass_on(polled, idle=idle)
            for record in ended:
                self._reject(record)
            self._take(polled)
            self._unpark(self._serving.poll())
            self._dispatch()
            self._publish(self._inference.collect(0 if polled else BUSY_S))
            self._settle()
        except SinkFailedError as error:
            self._replay(error)
        self._regulate()
        self._events.turned(self._clock(), self._inference.running_s, self._sink.waiting_s)

    # poll, decode, route -------------------------------------------------------------------------------------------

    def _take(self, polled: list[list[Any]]) -> None:
        now_ms = int(self._wall_clock() * 1000)
        room = int(self._settings.max_in_flight_bytes)  # a job may take many times its bytes once it is decoded
        left: dict[int, int] = {}
        for records in polled:
            owned = self._offsets.of(records[0].partition)
            assert owned is not None  # noqa: S101 - the source gives only records of partitions that are owned
            taken, jobs = 0, []
            for record in records:
                if room <= 0:
                    left[record.partition] = record.offset
                    break
                job, failure = self._decoder.read(record, owned.epoch, now_ms)
                owned.taken(record.offset, job.size)
                room -= job.size
                taken += 1
                if failure is None:
                    jobs.append(job)
                else:
                    self._bury(job, failure)
            self._router.route(jobs)
            self._breaker.took(taken)
        for partition, offset in left.items():
            self._source.reread(partition, offset)
        self._collector.read(int(self._settings.max_in_flight_bytes) - room)

    def _reject(self, record: Any) -> None:
        """Bury a record, unread, that has ended the processes that read it."""
        owned = self._offsets.of(record.partition)
        if owned is not None:
            job, failure = poisonous(record, owned.epoch)
            owned.taken(record.offset, job.size)
            self._bury(job, failure)

    def _unpark(self, models: Iterable[str]) -> None:
        self._router.route(
            [job for job in self._parking.leave(models) if self._offsets.current(job.record.partition, job.epoch)]
        )

    # batch, predict, publish ---------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        while self._inference.has_room:
            batch = self._batcher.next(self._clock(), flush=self._deadline is not None)
            if batch is None:
                return
            in_time, late = sift(batch, int(self._wall_clock() * 1000))
            for job, failure in late:  # while they waited for their model
                batch.model.release()
                self._bury(job, failure)
            if in_time is not None:
                self._inference.submit(in_time)

    def _publish(self, predicted: list[Predicted]) -> None:
        _release(done.batch for done in predicted)
        topic = self._sink.topics.predictions
        buried = self._buried
        jobs = 0
        for done in predicted:
            predictions = []
            for answers in done.answers:
                jobs += len(answers.jobs)
                for job, out in encode(done.batch.model, answers, topic.record_limit):
                    if isinstance(out, Failure):
                        self._bury(job, out)
                    elif self._offsets.current(job.record.partition, job.epoch):
                        predictions.append(out)
            for refused in self._sink.send(topic, predictions):
                self._bury(refused.job, too_large(topic.record_limit))
        self._breaker.predicted(jobs - (self._buried - buried))

    def _bury(self, job: Job, failure: Failure) -> None:
        record = job.record
        if not self._offsets.current(record.partition, job.epoch):
            return
        position = f"{record.topic}/{record.partition}/{record.offset}"
        topic = self._sink.topics.dead_letters
        key, value, headers = dead_letter(
            key=record.key,
            value=record.value,
            headers=record.headers,
            position=position,
            failure=failure,
            failed_at_ms=int(self._wall_clock() * 1000),
            consumer=self._name,
            limit=topic.record_limit,
            whole=type(record.headers) is not Unopened,
        )
        if self._sink.send(topic, [Answer(job, key, sendable(key, value), headers)]):
            raise FatalError(
                Exit.CONFIG, f"{topic.name}: its max.message.bytes of {topic.record_limit} holds no dead letter at all"
            )
        self._buried += 1
        self._breaker.buried(failure.reason)
        self._events.dead_letter(job.routing.model_key, failure, position)

    # acknowledge, commit -------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._sink.settle(flush=self._deadline is not None or self._caution.careful)
        now = self._clock()
        if now >= self._next_commit:
            self._next_commit = now + self._settings.commit_interval_s
            self._source.commit(min(COMMIT_S, self._deadline.left) if self._deadline else COMMIT_S)
            told = (self._offsets.partitions, self._source.joined)
            if told != self._told:
                self._told = told
                self._events.assigned(told[0], joined=told[1])
        if now >= self._next_lag and not self._deadline:
            self._events.lagging(self._source.lag(LAG_TIMEOUT_S))
            self._next_lag = self._clock() + LAG_S

    # how much may be in hand, and what goes wrong ------------------------------------------------------------------

    def _patience(self) -> float:
        """How long poll() may wait: not at all while there is something else to do, but for joining the group."""
        if not self._source.joined:
            return JOIN_S
        if self._inference.pending or self._deadline:
            return 0
        waiting = (
            len(self._batcher)
            or len(self._parking)
            or self._sink.waiting
            or self._caution.holding
            or (not self._reading and self._offsets.jobs_in_hand)
        )
        return BUSY_S if waiting else IDLE_S

    def _regulate(self) -> None:
        jobs, size = self._offsets.jobs_in_hand, self._offsets.bytes_in_hand
        full = (
            self._too_many_jobs.high(jobs)
            | self._too_many_bytes.high(size + self._sink.nbytes)
            | self._too_many_rows.high(self._batcher.rows)
            | self._caution.holding
        )
        circuit = self._breaker.circuit
        if circuit is not self._circuit:
            self._circuit = circuit
            self._events.circuit(circuit, self._settings.dead_letter_window_s)
        self._reading = self._sending and not full and not self._deadline and self._breaker.allowance != 0
        if not self._reading:
            self._source.pause_only(self._offsets.partitions)
        elif self._too_many_parked.high(len(self._parking)):
            self._source.pause_only(self._parking.partitions)
        else:
            self._source.pause_only(())

    def _replay(self, error: SinkFailedError) -> None:
        """Forget what is in hand and read it again: what was sent and not acknowledged may be lost."""
        if self._sending:
            self._events.sink_failed(str(error))
        self._sending = False
        _release(self._batcher.clear())
        self._parking.clear()
        self._source.rewind()

    def _revive(self) -> None:
        if self._clock() < self._next_revival:
            return
        try:
            self._sink.rebuild()
        except FatalError as error:
            if error.exit_code is not Exit.UNAVAILABLE:
                raise
        else:
            self._sending = True
            self._events.sink_recovered()
        self._next_revival = self._clock() + REVIVE_S

    def _drain(self) -> None:
        """Answer what is in hand, but for what waits for a model: that is read again by whoever comes next."""
        deadline = self._deadline = Deadline(self._clock, self._settings.drain_s)
        self._parking.clear()
        self._caution.drain()
        self._events.draining(self._offsets.jobs_in_hand)
        while self._sending and deadline.left and (self._inference.pending or len(self._batcher) or self._sink.waiting):
            self.turn()
        while not self._source.release(max(LAST_COMMIT_S, min(COMMIT_S, deadline.left))) and deadline.left:
            self._source.poll(self._patience(), 0)  # a rebalance is in progress: it goes on while polling
        self._events.drained(self._offsets.jobs_in_hand)


def _release(batches: Iterable[Batch]) -> None:
    for batch in batches:
        for _ in batch.jobs:
            batch.model.release()
