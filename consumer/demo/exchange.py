"""Jobs out, outcomes in: the demo's own Kafka clients, since it needs the records' positions and timestamps."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from consumer.demo.report import Job, Outcome, Sent
from consumer.exits import Exit, FatalError
from consumer.settings import Settings
from schemas import headers as names
from schemas.causes import one_line
from schemas.messages import Position
from schemas.records import read_dead_letter, read_prediction

_SEND_S = 30.0
_ANSWER_S = 60.0  # from the last answer to the next
_POLL_MS = 200


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the client's errors into FatalError (69)."""
    try:
        yield
    except KafkaError as error:
        why = one_line(error) or type(error).__name__
        raise FatalError(Exit.UNAVAILABLE, f"the demo's broker does not answer ({why}); run the demo again") from None


@_explained()
def publish(settings: Settings, jobs: Sequence[Job], done: Callable[[int], None]) -> list[Sent]:
    """Send every job and wait for the broker's acknowledgement of each; `done` hears how many. FatalError (69)."""
    producer = KafkaProducer(bootstrap_servers=list(settings.bootstrap_servers), acks="all", linger_ms=5)
    try:
        # Keyed by id, so that the jobs spread over the partitions as strangers' jobs would.
        futures = [
            producer.send(
                settings.jobs_topic,
                key=job.id.encode(),
                value=job.value,
                headers=[(names.MODEL_KEY, job.model.encode()), (names.CORRELATION_ID, job.id.encode())],
            )
            for job in jobs
        ]
        sent = []
        for job, future in zip(jobs, futures, strict=True):
            acknowledged = future.get(timeout=_SEND_S)
            position = Position(acknowledged.topic, acknowledged.partition, acknowledged.offset)
            sent.append(Sent(job, str(position), acknowledged.timestamp))
            done(len(sent))
        return sent
    finally:
        producer.close(timeout=_SEND_S)


class Outcomes:
    """Reads predictions and dead letters from their beginning, and keeps them. FatalError (69): no broker answers."""

    @_explained()
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = KafkaConsumer(
            bootstrap_servers=list(settings.bootstrap_servers), group_id=None, enable_auto_commit=False
        )
        topics = (settings.predictions_topic, settings.dead_letters_topic)
        self._partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in self._consumer.partitions_for_topic(topic) or ()
        ]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning(*self._partitions)
        self.read: list[Outcome] = []

    @_explained()
    def wait_for(self, positions: Collection[str], done: Callable[[int], None]) -> None:
        """Read until every job of `positions` has an outcome; FatalError (75) where none comes for a minute."""
        missing = set(positions)
        deadline = time.monotonic() + _ANSWER_S
        while missing:
            for outcome in self._poll():
                missing.discard(outcome.position)
                deadline = time.monotonic() + _ANSWER_S
            done(len(positions) - len(missing))
            if time.monotonic() > deadline:
                raise FatalError(
                    Exit.TEMPORARY,
                    f"{len(missing)} of {len(positions)} jobs have no answer, and none came for {_ANSWER_S:.0f} s",
                )

    @_explained()
    def read_to_the_end(self) -> list[Outcome]:
        """All outcomes that are there now: what came twice is found here."""
        ends = self._consumer.end_offsets(self._partitions, timeout_ms=int(_ANSWER_S * 1000))
        deadline = time.monotonic() + _ANSWER_S
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            self._poll()
            if time.monotonic() > deadline:
                raise FatalError(Exit.TEMPORARY, f"the answers could not be read to their end in {_ANSWER_S:.0f} s")
        return self.read

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close(timeout_ms=5_000)

    def _poll(self) -> list[Outcome]:
        polled = self._consumer.poll(timeout_ms=_POLL_MS).values()
        fresh = list(self._outcomes(record for records in polled for record in records))
        self.read += fresh
        return fresh

    def _outcomes(self, records: Iterator[Any]) -> Iterator[Outcome]:
        for record in records:
            if record.topic == self._settings.dead_letters_topic:
                dead = read_dead_letter(record.key, record.value, record.headers)
                asked = (dict(dead.headers).get(names.CORRELATION_ID) or b"").decode()
                yield Outcome(asked, str(dead.position), record.timestamp, reason=dead.reason, message=dead.message)
            else:
                prediction = read_prediction(record.key, record.value, record.headers)
                [tensor] = prediction.response.outputs
                yield Outcome(
                    (prediction.correlation_id or b"").decode(),
                    str(prediction.position),
                    record.timestamp,
                    answer=int(tensor.array.argmax(axis=1)[0]),
                )
