"""Members that the group puts out at the worst of times, and members that share a name."""

import signal
from pathlib import Path

import pytest

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import Topics
from tests.ledger import ANSWERS_S, Ledger, lag
from tests.replica import Replica, options, replica, until

JOBS = 1_000
MOVED_S = 120.0


def owned(process: Replica) -> int:
    """How many partitions it says that it reads."""
    return len((process.get("/readyz")[1] or {}).get("partitions", ()))


@pytest.mark.timeout(400)
def test_a_member_that_is_put_out_while_it_joins_begins_anew(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    given = options(
        kafka,
        topics,
        store,
        PRELOAD=stores.DOUBLE,
        DELIVERY="exactly-once",
        SESSION_TIMEOUT_S=6,
        TRANSACTION_TIMEOUT_S=6,
    )
    ledger = Ledger(kafka, topics)
    with (
        replica(tmp_path / "first.log", **given) as first,
        replica(tmp_path / "second.log", **given) as second,
    ):
        until(lambda: owned(first) == owned(second) == 1, MOVED_S, "a partition each")
        ledger.publish(JOBS)
        until(lambda: ledger.collect() == JOBS, ANSWERS_S, "answers")
        with replica(tmp_path / "third.log", **given) as third:
            until(lambda: third.events("served"), MOVED_S, "a third that is about to join")
            # The second holds up a rebalance in which the first has asked to join; then both are away for too long.
            second.process.send_signal(signal.SIGSTOP)
            until(lambda: "has not joined" in str(first.get("/readyz")[1]), MOVED_S, "a rebalance")
            first.process.send_signal(signal.SIGSTOP)
            until(lambda: owned(third) == 2, MOVED_S, "another owner")
            ledger.publish(JOBS)
            until(lambda: ledger.collect() == ledger.published, ANSWERS_S, "answers")
            for process in (first, second):
                process.process.send_signal(signal.SIGCONT)
            until(lambda: owned(first) + owned(second) + owned(third) == 2, MOVED_S, "an owner for each partition")
            ledger.publish(JOBS)
            until(lambda: ledger.collect() == ledger.published, ANSWERS_S, "answers")
            for process in (first, second, third):
                assert process.stop() == 0
    ledger.collect()
    assert ledger.duplicates == 0
    assert lag(kafka, topics) == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_replica_whose_name_another_takes_ends(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path, delivery: str
) -> None:
    given = options(kafka, topics, store, PRELOAD=stores.DOUBLE, DELIVERY=delivery, INSTANCE_ID="one")
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "first.log", **given) as first:
        first.wait_ready()
        ledger.publish(JOBS)
        ledger.settle()
        with replica(tmp_path / "second.log", **given) as second:
            until(lambda: owned(second) == 2, MOVED_S, "a second of that name")

            def ended() -> bool:
                ledger.publish(10)  # a commit is what tells
                ledger.collect()
                return first.process.poll() is not None

            until(ended, MOVED_S, "the end of the first")
            assert first.process.returncode == 76
            assert "LOADONCE_INSTANCE_ID=one" in (tmp_path / "first.log").read_text()
            until(lambda: ledger.collect() == ledger.published, ANSWERS_S, "answers")
            assert second.stop() == 0
    if delivery == "exactly-once":
        assert ledger.duplicates == 0


@pytest.mark.timeout(300)
def test_a_replica_with_a_name_is_back_at_once(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    given = options(kafka, topics, store, PRELOAD=stores.DOUBLE, INSTANCE_ID="one", SESSION_TIMEOUT_S=600)
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "first.log", **given) as first:
        first.wait_ready()
        ledger.publish(JOBS)
        ledger.settle()
        first.kill()
    with replica(tmp_path / "second.log", **given) as second:
        ledger.publish(JOBS)
        ledger.settle()  # long before the session of the first is over
        assert second.stop() == 0
    assert lag(kafka, topics) == 0
