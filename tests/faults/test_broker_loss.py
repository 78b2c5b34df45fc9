"""Brokers that go away and come back, in every way that a cluster knows: nothing is lost, nothing has to be restarted.

`make test-faults` runs all of it; without FAULTS=all some cells stand for the others.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from consumer.local import LocalKafka
from consumer.local.node import Node
from tests import stores
from tests.conftest import Topics, create_topics, fresh_topics
from tests.ledger import Ledger, lag
from tests.replica import options, replica, until

SETTLED_S = 150.0
UNREADY_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalKafka]:
    """Three nodes; topics need two of them in sync."""
    with LocalKafka(3) as kafka:
        yield kafka


def _leader(cluster: LocalKafka, topic: str) -> Node:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})
    leader = admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader
    return next(node for node in cluster.nodes if node.id == leader)


@contextmanager
def one_killed(cluster: LocalKafka, topics: Topics) -> Iterator[None]:
    node = _leader(cluster, topics.predictions)
    node.kill()
    yield
    node.start()


@contextmanager
def leader_moved(cluster: LocalKafka, topics: Topics) -> Iterator[None]:
    node = _leader(cluster, topics.jobs)
    node.stop()  # which hands its partitions over
    yield
    node.start()


@contextmanager
def all_killed(cluster: LocalKafka, topics: Topics) -> Iterator[None]:
    for node in cluster.nodes:
        node.kill()
    yield
    for node in cluster.nodes:
        node.start(wait=False)
    cluster.wait_until_serving()


@contextmanager
def two_killed(cluster: LocalKafka, topics: Topics) -> Iterator[None]:
    """NOT_ENOUGH_REPLICAS, and no quorum of controllers."""
    for node in cluster.nodes[1:]:
        node.kill()
    yield
    for node in cluster.nodes[1:]:
        node.start(wait=False)
    cluster.wait_until_serving()


@contextmanager
def all_stalled(cluster: LocalKafka, topics: Topics) -> Iterator[None]:
    """As a network that swallows everything: connections stay open and nobody answers."""
    for node in cluster.nodes:
        node.pause()
    yield
    for node in cluster.nodes:
        node.resume()


@contextmanager
def predictions_deleted(cluster: LocalKafka, topics: Topics) -> Iterator[None]:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 2})
    admin.delete_topics([topics.predictions], operation_timeout=30)[topics.predictions].result(30)
    yield
    create_topics(cluster, topics.predictions)


Loss = Callable[[LocalKafka, Topics], AbstractContextManager[None]]
LOSSES: dict[str, tuple[Loss, bool]] = {
    # Whether jobs go on being answered meanwhile.
    "one of three killed": (one_killed, True),
    "leader moved": (leader_moved, True),
    "all killed": (all_killed, False),
    "two of three killed": (two_killed, False),
    "all stalled": (all_stalled, False),
    "predictions deleted": (predictions_deleted, False),
}
SOME = [("one of three killed", "exactly-once")]
ALL = [(loss, delivery) for loss in LOSSES for delivery in ("at-least-once", "exactly-once")]


@pytest.mark.timeout(500)
@pytest.mark.parametrize("cell", ALL if os.environ.get("FAULTS") == "all" else SOME, ids="-".join)
def test_broker_loss(
    cluster: LocalKafka, store: Path, tmp_path: Path, record_cell: Callable[..., None], cell: tuple[str, str]
) -> None:
    name, delivery = cell
    loss, goes_on = LOSSES[name]
    topics = fresh_topics(cluster)
    ledger = Ledger(cluster, topics)
    given = options(cluster, topics, store, PRELOAD=stores.DOUBLE, MAX_BATCH_ROWS=16, DELIVERY=delivery)
    with replica(tmp_path / "replica.log", **given) as process:
        process.wait_ready()
        ledger.publish(1_000)
        until(lambda: ledger.collect() > 100, SETTLED_S, "some answers")
        with loss(cluster, topics):
            if goes_on:
                ledger.publish(1_000)
                _settle(ledger, name)
            else:

                def unready() -> bool:
                    if name == "predictions deleted":
                        ledger.publish(1)  # that it is gone shows where there is something to write to it
                    return process.get("/readyz")[0] == 503

                until(unready, UNREADY_S, "a process that says so")
            assert process.process.poll() is None
        began = time.monotonic()
        ledger.publish(200)
        _settle(ledger, name)
        until(lambda: process.get("/readyz")[0] == 200, SETTLED_S, "readiness")
        record_cell(delivery, name, "answered after s", f"{time.monotonic() - began:.1f}")
        assert process.stop() == 0
    assert lag(cluster, topics) == 0
    if delivery == "exactly-once":
        assert ledger.duplicates == 0


def _settle(ledger: Ledger, name: str) -> None:
    """Every job answered; but what was answered before its topic was deleted cannot be seen any more."""
    if name != "predictions deleted":
        until(lambda: ledger.collect() == ledger.published, SETTLED_S, "an answer to every job")
        return
    last = range(ledger.published - 200, ledger.published)
    until(lambda: ledger.collect() > 0 and all(ledger.answers[number] for number in last), SETTLED_S, "answers")
