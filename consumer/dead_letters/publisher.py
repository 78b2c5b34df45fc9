"""Writes the jobs of a replay and the marks that they were replayed: both in one transaction, or neither.

All replays and discards of a topic have one transactional id: who begins later fences who began before, and ends what
that had open. So there are never two that write the same marks.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kafka.errors import AuthorizationError, KafkaError

from consumer.delivery.addressed import Addressed, write_together
from consumer.delivery.bulk import BulkProducer
from consumer.delivery.connection import explained, for_transactions
from consumer.delivery.sink import close_producer
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named
from consumer.watchdog import Watchdog
from schemas.causes import one_line

TRANSACTION_S = 15.0
"""When the broker gives an open transaction up. Until then the consumers of the jobs topic wait for it, so it is
short."""
FLUSH_S = 10.0
LIMIT_S = 60.0
"""The client's calls that begin and end transactions know no time limit; one that takes longer ends the process."""
INIT_S = 20.0
CLOSE_S = 1.0


class TransactionFailedError(Exception):
    """It was committed or not: only the topics know. The producer is gone."""


class Publisher:
    """A transactional producer that is replaced after every failure."""

    def __init__(
        self,
        settings: Settings,
        record_limits: Sequence[int],
        watchdog: Watchdog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._record_limits = record_limits
        self._watchdog = watchdog
        self._clock = clock
        self._producer: Any = None

    def open(self) -> None:
        """Fence whoever wrote before and end what they had open; afterwards the journal says all that was done.

        Raises:
            FatalError: no broker (69), or this user may not (77).
            TransactionFailedError: the broker does not give the transactional id at present.
        """
        self.close()
        name = f"loadonce-dlq-{self._settings.dead_letters_topic}"
        config = for_transactions(
            self._settings, "loadonce-dlq", self._record_limits, name=name, timeout_s=TRANSACTION_S
        ) | {"max_block_ms": int(INIT_S * 1000)}
        with explained(self._settings):
            producer = BulkProducer(**config)
        try:
            with self._watchdog.limit(LIMIT_S, "beginning with Kafka transactions"):
                producer.init_transactions()
        except AuthorizationError as error:
            close_producer(producer, CLOSE_S)
            raise self._refused(error) from None
        except KafkaError as error:
            close_producer(producer, CLOSE_S)
            raise TransactionFailedError(type(error).__name__) from error
        except BaseException:
            close_producer(producer, CLOSE_S)
            raise
        self._producer = producer

    def write(self, records: Sequence[Addressed]) -> None:
        """Write all of them in one transaction.

        Raises:
            TransactionFailedError: `open` it again, and ask the journal what was written.
            FatalError: this user may not write (77).
        """
        producer, began = self._producer, self._clock()
        try:
            with self._watchdog.limit(LIMIT_S, "a Kafka transaction"):
                write_together(producer, records, flush_s=FLUSH_S)
        except AuthorizationError as error:
            self._abandon()
            raise self._refused(error) from None
        except (KafkaError, ValueError, TypeError) as error:
            self._abandon()
            raise TransactionFailedError(f"{type(error).__name__}: {one_line(error)}") from error
        except BaseException:
            self._abandon()
            raise
        if self._clock() - began >= TRANSACTION_S:
            # The broker may have given it up before the commit, and the client would not say so.
            self.close()
            raise TransactionFailedError(f"it took more than {TRANSACTION_S:g} s")

    def close(self) -> None:
        """Close the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer, CLOSE_S)

    def _abandon(self) -> None:
        """Tell the broker, if it listens, that nothing more comes: readers of the jobs topic wait for that."""
        producer = self._producer

        def abort() -> None:
            with suppress(KafkaError):  # it ends when its time is over, or with the next `open`
                producer.abort_transaction()

        # Without a broker it never returns, and leaves a thread behind.
        ending = threading.Thread(target=abort, name="abort", daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        self.close()

    def _refused(self, error: BaseException) -> FatalError:
        return FatalError(
            Exit.REFUSED,
            f"{named(self._settings, 'dead_letters_topic')}: not allowed: {type(error).__name__}; replaying needs to "
            "write to the jobs topic, to what was handled, and with the transactional id loadonce-dlq-<dead letters>",
        )
