"""Jobs that end the process, or never return: found, dead-lettered, and nothing else is lost.

`make test-faults` runs all of it; without FAULTS=all some cells stand for the others.
"""

import contextlib
import os
from pathlib import Path

import pytest

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import Topics
from tests.ledger import Ledger, lag
from tests.replica import Replica, options, replica, until

POISON = 666
FOUND_S = 150.0
STARTS = 2
SOME = [(2, "exactly-once")]
ALL = [(size, delivery) for size in (1, 2) for delivery in ("at-least-once", "exactly-once")]


class Fleet:
    """Replicas that are started again whenever they end, as a supervisor does."""

    def __init__(self, folder: Path, size: int, options: dict[str, object]) -> None:
        self._folder = folder
        self._options = options
        self._replicas = [self._start(number) for number in range(size)]
        self.ended: list[int] = []

    def _start(self, number: int) -> Replica:
        return Replica(self._folder / f"replica-{number}.log", **self._options)

    def look(self) -> None:
        """Start again whoever has ended."""
        for number, one in enumerate(self._replicas):
            code = one.process.poll()
            if code is not None:
                self.ended.append(code)
                self._replicas[number] = self._start(number)

    def events(self, name: str) -> int:
        """How often any of them has said so."""
        return sum(len(one.events(name)) for one in self._replicas)

    def stop(self) -> list[int]:
        """Their exit codes."""
        return [one.wait_ready().stop() for one in self._replicas]

    def kill(self) -> None:
        """Leave nothing behind."""
        for one in self._replicas:
            with contextlib.suppress(ProcessLookupError):
                one.kill()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("size", "delivery"), ALL if os.environ.get("FAULTS") == "all" else SOME)
def test_a_job_that_aborts_the_process(  # noqa: PLR0917 - fixtures
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path, size: int, delivery: str
) -> None:
    fleet = Fleet(
        tmp_path,
        size,
        options(
            kafka,
            topics,
            store,
            PRELOAD=stores.DEADLY,
            DELIVERY=delivery,
            POISON_STARTS=STARTS,
            SESSION_TIMEOUT_S=6,
            TRANSACTION_TIMEOUT_S=6,
        ),
    )
    ledger = Ledger(kafka, topics)
    ledger.publish(700, stores.DEADLY)
    try:

        def answered() -> bool:
            fleet.look()
            return ledger.collect() == ledger.published

        until(answered, FOUND_S, "an answer to every job")
        ledger.publish(100, stores.DEADLY)
        until(answered, FOUND_S, "answers to what follows")
        assert fleet.stop() == [0] * size
    finally:
        fleet.kill()
    assert ledger.reasons == {"bad-body": 80, "prediction": 719, "poison": 1}
    assert ledger.poisonous == [POISON]
    # It ended so many processes before it was looked for, and one with nothing else in hand. One that has still
    # answered what came before it has moved the offset: then they are counted anew. With several replicas some end
    # before their start has been counted, or put back what they found when the partition moves on.
    assert set(fleet.ended) == {-6}
    assert STARTS + 1 <= len(fleet.ended) <= (2 * STARTS + 1) * size
    assert fleet.events("jobs tried one at a time")
    assert lag(kafka, topics) == 0
    if delivery == "exactly-once":
        assert ledger.duplicates == 0


def test_a_model_that_does_not_return_ends_the_process(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    fleet = Fleet(
        tmp_path,
        1,
        options(kafka, topics, store, PRELOAD=stores.SLEEPY, STALL_S=1, POISON_STARTS=1, SESSION_TIMEOUT_S=6),
    )
    ledger = Ledger(kafka, topics)
    ledger.publish(POISON + 10, stores.SLEEPY)
    try:

        def answered() -> bool:
            fleet.look()
            return ledger.collect() == ledger.published

        until(answered, FOUND_S, "an answer to every job")
        assert fleet.stop() == [0]
    finally:
        fleet.kill()
    assert ledger.poisonous == [POISON]
    assert set(fleet.ended) == {71}


def test_replicas_that_are_stopped_again_and_again_find_no_poison(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    # Their model takes seconds to open: replicas that stop before have answered nothing, and moved no offset.
    given = options(kafka, topics, store, POISON_STARTS=1, DISK_CACHE=tmp_path / "disk-cache")
    ledger.publish(10, stores.SLOW)
    for number in range(4):
        with replica(tmp_path / f"{number}.log", **given) as process:
            assert process.wait_ready().stop() == 0
            assert not process.events("jobs tried one at a time")
    with replica(tmp_path / "last.log", **given) as process:
        until(lambda: ledger.collect() == ledger.published, FOUND_S, "an answer to every job")
        assert process.stop() == 0
