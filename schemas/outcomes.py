"""What became of jobs: predictions and dead letters as they come."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from schemas.connection import Connection
from schemas.limits import Limits
from schemas.messages import DeadLetter, Prediction
from schemas.reasons import RefusedError
from schemas.records import read_dead_letter, read_prediction

PREDICTIONS_TOPIC = "inference.predictions"
DEAD_LETTERS_TOPIC = "inference.dead-letters"

_ITERATION_S = 0.2


class OutcomeReader:
    """Reads all partitions of both output topics, without a group, from `now` (opening it) or from the `earliest`.

    Transactions that are not committed are not seen. `skipped` counts records that are no prediction and no dead letter
    by the contract. One thread at a time. BrokerUnavailableError, TopicMissingError: on entering, on `from_now`.

    >>> with OutcomeReader("localhost:9092", start="earliest") as outcomes:
    ...     for outcome in outcomes.poll(timeout_s=5):
    ...         print(outcome.position, outcome)
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str],
        *,
        predictions_topic: str = PREDICTIONS_TOPIC,
        dead_letters_topic: str = DEAD_LETTERS_TOPIC,
        start: Literal["now", "earliest"] = "now",
        security: Mapping[str, Any] | None = None,
        request_timeout_s: float = 10.0,
        limits: Limits | None = None,
    ) -> None:
        self._connection = Connection.to(bootstrap_servers, security, request_timeout_s)
        self._predictions_topic = predictions_topic
        self._dead_letters_topic = dead_letters_topic
        self._start = start
        self._limits = limits or Limits()
        self._timeout_ms = int(request_timeout_s * 1000)
        self._consumer: Any = None
        self.skipped = 0

    def __enter__(self) -> Self:
        self._consumer = self._connection.consumer()
        try:
            topics = (self._predictions_topic, self._dead_letters_topic)
            partitions = [part for topic in topics for part in self._connection.partitions(self._consumer, topic)]
            self._consumer.assign(partitions)
            if self._start == "now":
                self.from_now()
            else:
                self._consumer.seek_to_beginning(*partitions)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __iter__(self) -> Iterator[Prediction | DeadLetter]:
        """Outcomes as they come, without end."""
        while True:
            yield from self.poll(_ITERATION_S)

    def poll(self, timeout_s: float) -> list[Prediction | DeadLetter]:
        """What has come; waits for at most `timeout_s` seconds where nothing has. BrokerUnavailableError."""
        with self._connection.explained():
            polled = self._consumer.poll(timeout_ms=max(0, int(timeout_s * 1000)))
        outcomes = (self._read(record) for records in polled.values() for record in records)
        return [outcome for outcome in outcomes if outcome is not None]

    def from_now(self) -> None:
        """Leave out what is there already, and go on with what comes after this call."""
        with self._connection.explained():
            ends = self._consumer.end_offsets(self._consumer.assignment(), timeout_ms=self._timeout_ms)
            for partition, offset in ends.items():
                self._consumer.seek(partition, offset)

    def _close(self) -> None:
        self._consumer.close(timeout_ms=self._timeout_ms)

    def _read(self, record: Any) -> Prediction | DeadLetter | None:
        try:
            if record.topic == self._dead_letters_topic:
                return read_dead_letter(record.key, record.value, record.headers)
            return read_prediction(record.key, record.value, record.headers, self._limits)
        except RefusedError:
            self.skipped += 1
            return None
