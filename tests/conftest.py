"""What the tests share: one real Kafka broker a run, and fresh topics a test."""

import uuid
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from consumer.local import LocalKafka

if TYPE_CHECKING:
    from consumer.models.opening import Opener

pytest_plugins = ["tests.endings"]

PARTITIONS = 2


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of one test's topics."""

    jobs: str
    predictions: str
    dead_letters: str


@pytest.fixture(scope="session")
def kafka() -> Iterator[LocalKafka]:
    """One node, started at the first test that asks for it."""
    with LocalKafka() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of `tests.stores`; to be read only."""
    from tests import stores

    return stores.write(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def opener(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Opener]":
    """One for all tests: its helper imports TensorFlow once. What the options say is for `tests.unit.test_models_*`."""
    from consumer.models.opening import Opener, OpenOptions

    options = OpenOptions(
        trusted_h5=frozenset({"trusted"}),
        max_bytes=1 << 30,
        custom_objects=("tests.custom_layers:Counting", "tests.custom_layers:Registered"),
    )
    opener = Opener(options, tmp_path_factory.mktemp("disk-cache"), 1 << 30)
    yield opener
    opener.close(10)


@pytest.fixture
def topics(kafka: LocalKafka) -> Topics:
    """Three topics of two partitions each that no other test knows."""
    return fresh_topics(kafka)


def fresh_topics(kafka: LocalKafka) -> Topics:
    """Create three topics of two partitions each, under names never used before."""
    run = uuid.uuid4().hex[:12]
    names = Topics(f"jobs-{run}", f"predictions-{run}", f"dead-letters-{run}")
    create_topics(kafka, *astuple(names))
    return names


def create_topics(cluster: LocalKafka, *names: str, partitions: int = PARTITIONS) -> None:
    """Create topics with the default replication of the cluster; they can be used on return."""
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap_servers)
    try:
        admin.create_topics({name: {"num_partitions": partitions} for name in names}, wait_for_metadata=True)
    finally:
        admin.close()
