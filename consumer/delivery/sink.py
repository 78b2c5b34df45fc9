"""Where answers go: predictions and dead letters, sent in order, and their acknowledgements.

A producer that failed once is never trusted again: kafka-python's idempotent producer can go on accepting records that
it will never send. The sink then raises SinkFailedError; `rebuild` makes a new producer, and the loop replays.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kafka import KafkaProducer
from kafka.errors import AuthorizationError, KafkaError, MessageSizeTooLargeError

from consumer.delivery.connection import explained, for_producer
from consumer.delivery.dead_letters import record_size
from consumer.delivery.topics import Topic, Topics, check_topics
from consumer.exits import Exit, FatalError
from consumer.settings import Settings

# How old the oldest unacknowledged record may become: longer than a cluster takes to elect another leader (10 s were
# measured), shorter than anybody would wait for a producer that has wedged.
ACK_DEADLINE_S = 60.0

Token = TypeVar("Token")


class SinkFailedError(Exception):
    """The producer cannot be trusted any more; what was sent and not acknowledged may or may not be in the log."""


class Sink(Generic[Token]):
    """Sends records, and gives back the token of each once the broker has acknowledged it, in the order of sending."""

    topics: Topics
    """The topics as they were when the producer was made; their limits are what it was made for."""

    def __init__(self, settings: Settings, client_id: str, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._client_id = client_id
        self._clock = clock
        self._sent: deque[tuple[Any, Token, float]] = deque()
        self._producer: Any = None
        self.rebuild()

    def __len__(self) -> int:
        """Records sent and not yet acknowledged."""
        return len(self._sent)

    def send(
        self,
        topic: Topic,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        *,
        near: int,
        token: Token,
    ) -> bool:
        """Send a record; False where it does not fit the topic.

        A keyed record goes where Kafka's default partitioner (murmur2) puts its key; one without goes to the partition
        that follows from `near`, the job's own: jobs of a partition then keep their order.

        Raises:
            SinkFailedError: the producer could not take it.
        """
        if record_size(key, value, headers) > topic.record_limit:
            return False
        if key is None and value is None:
            value = b""  # the client cannot send a record that has neither
        if self._producer is None:
            raise SinkFailedError("there is no producer")
        partition = near % topic.partitions if key is None else None
        try:
            future = self._producer.send(topic.name, value=value, key=key, headers=headers, partition=partition)
        except MessageSizeTooLargeError:
            return False  # the producer is unharmed: it looked before it took the record
        except (KafkaError, ValueError, TypeError) as error:
            raise _failed(topic.name, error) from error
        self._sent.append((future, token, self._clock()))
        return True

    def acknowledged(self) -> list[Token]:
        """The tokens of what has been acknowledged since the last call.

        Raises:
            SinkFailedError: a record was not delivered, or the oldest waits longer than ACK_DEADLINE_S.
            FatalError: the broker does not let this user write (77).
        """
        sent = self._sent
        tokens: list[Token] = []
        while sent and sent[0][0].is_done:
            error = sent[0][0].exception
            if error is not None:
                if tokens:
                    return tokens  # what was acknowledged before it counts; the next call raises
                raise _failed("a record was not delivered", error) from error
            tokens.append(sent.popleft()[1])
        if sent and self._clock() - sent[0][2] > ACK_DEADLINE_S:
            raise SinkFailedError(f"no acknowledgement for {ACK_DEADLINE_S:g} s")
        return tokens

    def rebuild(self) -> None:
        """Throw the producer away, with what it has not delivered, and make a new one for the topics as they are now.

        Raises:
            FatalError: there is no broker or topic at present (69), or this user may not write (77).
        """
        self.close(timeout_s=0.5)
        self.topics = check_topics(self._settings)
        limits = (self.topics.predictions.record_limit, self.topics.dead_letters.record_limit)
        with explained(self._settings):
            self._producer = KafkaProducer(**for_producer(self._settings, self._client_id, limits))

    def close(self, timeout_s: float) -> None:
        """Close the producer; what it still holds after `timeout_s` seconds is given up (and was never committed)."""
        producer, self._producer = self._producer, None
        self._sent.clear()
        if producer is None:
            return
        try:
            producer.close(timeout=timeout_s)
        except KafkaError:
            # It stays open and its thread with it; only its sender can still be stopped.
            producer._sender.force_close()
            producer._sender.join(timeout_s)


def _failed(topic: str, error: BaseException) -> Exception:
    if isinstance(error, AuthorizationError):
        return FatalError(Exit.REFUSED, f"{topic}: the broker does not let this user write to it")
    return SinkFailedError(f"{topic}: {type(error).__name__}")
