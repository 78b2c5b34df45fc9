"""The table of kill points: a fault in the midst of each step of a job's way, for both deliveries, on three nodes.

`make test-faults` runs all of it; without FAULTS=all some cells stand for the others.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from consumer.local import LocalKafka
from consumer.local.node import Node
from tests import stores
from tests.conftest import Topics, fresh_topics
from tests.faults.victim import POINTS
from tests.ledger import Ledger, lag
from tests.replica import Replica, options, replica, until

FAULTS = ("SIGKILL", "SIGSTOP", "revocation", "broker SIGKILL")
DELIVERIES = ("at-least-once", "exactly-once")
SOME = [
    ("at-least-once", "send", "SIGKILL"),
    ("exactly-once", "offsets sent", "SIGKILL"),
    ("exactly-once", "ack", "SIGSTOP"),
]
ALL = [
    (delivery, point, fault)
    for delivery in DELIVERIES
    for point in POINTS
    for fault in FAULTS
    if (delivery, point) != ("at-least-once", "offsets sent")  # there is no such step
]
CELLS = ALL if os.environ.get("FAULTS") == "all" else SOME
IN_FLIGHT = 200
POLLED = 500
"""Of one poll: what may be in hand beyond the limit."""
REACHED_S = 90.0
SETTLED_S = 120.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalKafka]:
    """Three nodes, which look each second for transactions to give up."""
    config = {
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "group.min.session.timeout.ms": "1000",
    }
    with LocalKafka(3, config=config) as kafka:
        yield kafka


@pytest.fixture(autouse=True)
def all_nodes(cluster: LocalKafka) -> Iterator[None]:
    """Whatever a test has done to them, the next has three nodes."""
    yield
    for node in cluster.nodes:
        if not node.alive:
            node.start()
    cluster.wait_until_serving()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_kill_point(
    cluster: LocalKafka, store: Path, tmp_path: Path, record_cell: Callable[..., None], cell: tuple[str, str, str]
) -> None:
    delivery, point, fault = cell
    topics = fresh_topics(cluster)
    ledger = Ledger(cluster, topics)
    more = options(
        cluster,
        topics,
        store,
        PRELOAD=stores.DOUBLE,
        MAX_BATCH_ROWS=16,
        DELIVERY=delivery,
        SESSION_TIMEOUT_S=6,
        TRANSACTION_TIMEOUT_S=6,
        COMMIT_INTERVAL_S=0.2,
        MAX_IN_FLIGHT_JOBS=IN_FLIGHT,
    )
    with replica(tmp_path / "victim.log", ("tests.faults.victim", point, str(tmp_path)), **more) as victim:
        victim.wait_ready()

        def reached() -> str:
            # Each tenth is a dead letter; where jobs are to be parked, their model comes late.
            late = point == "park" and ledger.collect() > IN_FLIGHT
            ledger.publish(20, stores.SLOW if late else stores.DOUBLE)
            ledger.collect()
            note = tmp_path / "reached"
            return note.read_text() if note.exists() else ""

        note: str = until(reached, REACHED_S, f"the point '{point}'")
        uncommitted = int(note.split(":")[1].rstrip("}"))
        if fault != "SIGKILL":
            uncommitted = max(uncommitted, lag(cluster, topics))  # it goes on, and may have fetched all there is
        with replica(tmp_path / "other.log", **more) as other:
            if fault == "broker SIGKILL":
                _leader(cluster, topics.jobs).kill()
            else:
                IN_A_REPLICA[fault](cluster, topics, victim, other)
            (tmp_path / "go").touch()
            victim.process.send_signal(signal.SIGCONT)  # to one that is dead it does nothing
            ledger.publish(100)
            until(lambda: ledger.collect() == ledger.published, SETTLED_S, "an answer to every job")
            assert set(ledger.reasons) == {"prediction", "bad-body"}
            for node in cluster.nodes:
                if not node.alive:
                    node.start()
            for process in (victim, other):
                if process.process.poll() is None:
                    assert process.stop() == 0
        ledger.collect()
    record_cell(delivery, point, fault, f"{ledger.duplicates}/{uncommitted}")
    assert lag(cluster, topics) == 0
    if delivery == "exactly-once":
        assert ledger.duplicates == 0
    else:
        # Where one comes back, the other gives up what it has begun; behind parked jobs nothing can be committed.
        moved = fault in ("revocation", "broker SIGKILL") or (fault, point) == ("SIGSTOP", "park")
        bound = max(uncommitted, IN_FLIGHT + POLLED) if moved else uncommitted
        assert ledger.duplicates <= bound


def _kill(_cluster: LocalKafka, _topics: Topics, victim: Replica, _other: Replica) -> None:
    victim.kill()


def _stop(_cluster: LocalKafka, _topics: Topics, victim: Replica, other: Replica) -> None:
    victim.process.send_signal(signal.SIGSTOP)
    until(lambda: len((other.get("/readyz")[1] or {}).get("partitions", ())) == 2, SETTLED_S, "another owner")


def _revoke(cluster: LocalKafka, topics: Topics, _victim: Replica, _other: Replica) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})

    def asked() -> bool:
        found = admin.describe_consumer_groups([topics.jobs], request_timeout=10)[topics.jobs].result()
        return len(found.members) == 2 or found.state.name != "STABLE"

    until(asked, SETTLED_S, "a second member")


IN_A_REPLICA = {"SIGKILL": _kill, "SIGSTOP": _stop, "revocation": _revoke}


def _leader(cluster: LocalKafka, topic: str) -> Node:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})
    leader = admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader
    return next(node for node in cluster.nodes if node.id == leader)
