"""What the source gives the loop while partitions come and go."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import FencedInstanceIdError, KafkaConnectionError, KafkaError
from kafka.future import Future

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
    for name, value in options(kafka, topics, tmp_path).items():
        monkeypatch.setenv(f"LOADONCE_{name}", str(value))
    offsets = Offsets()
    source = Source(settings.load(), "test", offsets)
    source.join()
    until(lambda: (source.poll(0.2), offsets.partitions)[1] == [0, 1], TIMEOUT_S, "an assignment")
    yield source, offsets
    source.close(5)


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


def test_heartbeats_that_a_lost_broker_has_ended_do_not_end_the_process(
    kafka: LocalKafka, topics: Topics, source: tuple[Source, Offsets]
) -> None:
    reader, offsets = source
    _end_heartbeats(reader, KafkaConnectionError("111 ECONNREFUSED"))
    assert reader.poll(0.2) == []
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        producer.send(topics.jobs, b"job", partition=0)
    assert until(lambda: reader.poll(0.2), TIMEOUT_S, "the record")
    assert offsets.partitions == [0, 1]


def test_a_member_whose_name_was_taken_ends_where_its_heartbeats_say_so(source: tuple[Source, Offsets]) -> None:
    reader, _ = source
    _end_heartbeats(reader, FencedInstanceIdError())
    with pytest.raises(FatalError) as raised:
        reader.poll(0.2)
    assert raised.value.exit_code is Exit.FENCED


def _end_heartbeats(reader: Source, error: KafkaError) -> None:
    """As they end with what a broker says or does not say: the client raises that from its next poll."""
    reader._consumer._coordinator._heartbeat_loop_future = Future().failure(error)
