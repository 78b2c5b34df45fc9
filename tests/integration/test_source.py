"""What the source gives the loop while partitions come and go."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConnectionError

from consumer import settings
from consumer.delivery.offsets import Offsets
from consumer.delivery.source import Source
from consumer.exits import Exit, FatalError
from consumer.local import LocalKafka
from tests.conftest import Topics
from tests.replica import options, until

TIMEOUT_S = 30.0


@pytest.fixture
def source(
    kafka: LocalKafka, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Source, Offsets]]:
    for name, value in options(kafka, topics, tmp_path, SESSION_TIMEOUT_S=6).items():
        monkeypatch.setenv(f"LOADONCE_{name}", str(value))
    source, offsets = member("test")
    yield source, offsets
    source.close(5)


def member(name: str) -> tuple[Source, Offsets]:
    """One that reads both partitions."""
    offsets = Offsets()
    source = Source(settings.load(), name, offsets)
    source.join()
    until(lambda: (source.poll(0.2), offsets.partitions)[1] == [0, 1], TIMEOUT_S, "an assignment")
    return source, offsets


def test_what_a_poll_read_across_two_assignments_is_read_again(
    kafka: LocalKafka, topics: Topics, source: tuple[Source, Offsets]
) -> None:
    reader, offsets = source
    listener = reader._consumer._subscription.rebalance_listener
    partition = next(tp for tp in reader._consumer.assignment() if tp.partition == 0)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)

    def move_and_publish() -> None:
        """What the client's I/O thread does in a rebalance, while the loop's thread waits in poll."""
        listener.on_partitions_revoked([partition])
        listener.on_partitions_assigned([partition])
        producer.send(topics.jobs, b"job", partition=0)
        producer.flush(10)

    mover = threading.Timer(0.3, move_and_publish)
    mover.start()
    before = offsets.of(0)
    first = reader.poll(10)
    mover.join()
    assert offsets.of(0) is not before
    assert first == []  # it could be of either assignment
    again = until(lambda: reader.poll(0.2), TIMEOUT_S, "the record again")
    assert [record.value for records in again for record in records] == [b"job"]
    producer.close(timeout=5)


def test_a_rebalance_that_ends_between_two_polls_is_taken_in(
    kafka: LocalKafka, topics: Topics, source: tuple[Source, Offsets]
) -> None:
    reader, offsets = source
    coordinator = reader._consumer._coordinator
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.create_partitions({topics.jobs: 4})
    admin.close()
    until(
        lambda: (reader._consumer.topics(), reader._consumer.partitions_for_topic(topics.jobs))[1] == {0, 1, 2, 3},
        TIMEOUT_S,
        "the new partitions",
    )
    until(lambda: (reader.poll(0.001), coordinator._join_task)[1] is not None, TIMEOUT_S, "a rebalance")
    until(lambda: coordinator._join_task.is_done, TIMEOUT_S, "its end")
    until(lambda: (reader.poll(0.2), offsets.partitions)[1] == [0, 1, 2, 3], TIMEOUT_S, "an assignment")
    assert reader.joined


def test_heartbeats_that_a_lost_broker_has_ended_begin_anew(
    kafka: LocalKafka, topics: Topics, source: tuple[Source, Offsets], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, offsets = source
    coordinator = reader._consumer._coordinator

    async def lost() -> None:
        raise KafkaConnectionError("111 ECONNREFUSED")

    with monkeypatch.context() as patched:
        patched.setattr(coordinator, "_do_heartbeat", lost)
        loop = coordinator._heartbeat_loop_future
        until(lambda: reader.poll(0.2) or loop.is_done, TIMEOUT_S, "the end of the heartbeats")
    ended = time.monotonic()
    until(lambda: (reader.poll(0.2), coordinator.heartbeat.last_receive > ended)[1], TIMEOUT_S, "another heartbeat")
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        producer.send(topics.jobs, b"job", partition=0)
    assert until(lambda: reader.poll(0.2), TIMEOUT_S, "the record")
    assert offsets.partitions == [0, 1]


def test_a_member_whose_name_was_taken_ends_though_it_has_nothing_to_do(
    kafka: LocalKafka, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in options(kafka, topics, tmp_path, SESSION_TIMEOUT_S=6, INSTANCE_ID="one").items():
        monkeypatch.setenv(f"LOADONCE_{name}", str(value))
    first, _ = member("first")
    until(lambda: (first.poll(0.2), first.commit(5))[1], TIMEOUT_S, "all is committed")
    second, _ = member("second")
    try:
        with pytest.raises(FatalError) as raised:
            until(lambda: (second.poll(0.1), first.poll(0.2))[1], TIMEOUT_S, "the end of the first")
        assert raised.value.exit_code is Exit.FENCED
    finally:
        second.close(5)
        first.close(5)


def test_a_group_of_another_application_is_an_option_that_is_wrong(
    kafka: LocalKafka, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in options(kafka, topics, tmp_path).items():
        monkeypatch.setenv(f"LOADONCE_{name}", str(value))
    with KafkaConsumer(topics.predictions, bootstrap_servers=kafka.bootstrap_servers, group_id=topics.jobs) as other:
        until(lambda: (other.poll(timeout_ms=200), other.assignment())[1], TIMEOUT_S, "an assignment of the other")
        source = Source(settings.load(), "test", Offsets())
        try:
            source.join()
            with pytest.raises(FatalError, match=r"LOADONCE_GROUP_ID.*another kind") as raised:
                until(lambda: source.poll(0.2), TIMEOUT_S, "the end")
            assert raised.value.exit_code is Exit.CONFIG
        finally:
            source.close(5)


def test_where_the_group_stands_is_not_what_was_asked_long_ago(
    kafka: LocalKafka, topics: Topics, source: tuple[Source, Offsets]
) -> None:
    reader, offsets = source
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:

        def read(jobs: int) -> None:
            """Publish them, and have them read and committed."""
            for _ in range(jobs):
                producer.send(topics.jobs, b"job", partition=0)
            producer.flush(10)
            left = jobs
            while left:
                for records in until(lambda: reader.poll(0.2), TIMEOUT_S, "the jobs"):
                    owned = offsets.of(0)
                    assert owned is not None
                    for record in records:
                        owned.taken(record.offset, 1)
                        owned.done(record.offset, 1)
                    left -= len(records)
            assert left == 0
            assert reader.commit(5)

        read(10)
        assert reader.marks([0], 0) is None  # given up
        read(20)
        assert reader.marks([0], 5) == {0: (30, "")}
        assert reader.marks([0], 0) is None
        read(5)
        partition = next(tp for tp in reader._consumer.assignment() if tp.partition == 0)
        listener = reader._consumer._subscription.rebalance_listener
        listener.on_partitions_revoked([partition])
        listener.on_partitions_assigned([partition])
        # What the client asks for a partition that it was given again.
        assert reader._consumer.committed(partition, timeout_ms=5_000) == 35
