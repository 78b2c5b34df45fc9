"""Transactions whose outcome this process does not get to know."""

import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError

from consumer import settings
from consumer.delivery.caution import Caution
from consumer.delivery.offsets import Offsets
from consumer.delivery.sink import SinkFailedError
from consumer.delivery.source import Source
from consumer.delivery.transactions import TransactionalSink
from consumer.local import LocalKafka
from consumer.pipeline.decode import poisonous
from consumer.pipeline.job import Answer
from tests.conftest import Topics
from tests.replica import options, until

TIMEOUT_S = 30.0
JOBS = 3


def test_what_a_transaction_has_committed_unknown_to_this_process_is_not_taken_back(
    kafka: LocalKafka, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in options(kafka, topics, tmp_path, DELIVERY="exactly-once").items():
        monkeypatch.setenv(f"LOADONCE_{name}", str(value))
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for _ in range(JOBS):
            producer.send(topics.jobs, b"job", partition=0)
        producer.flush(10)
    given, offsets = settings.load(), Offsets()
    source = Source(given, "test", offsets)
    sink = TransactionalSink(given, "test", source=source, offsets=offsets, clock=time.monotonic)
    caution = Caution(source, offsets, allowed=2, alone_for=100, told=lambda *_: None)
    try:
        source.join()
        polled = until(lambda: caution.pass_on(source.poll(0.2), idle=True)[0], TIMEOUT_S, "the jobs")
        for record in (record for records in polled for record in records):
            owned = offsets.of(record.partition)
            assert owned is not None
            job, _ = poisonous(record, owned.epoch)
            owned.taken(record.offset, job.size)
            assert not sink.send(sink.topics.dead_letters, [Answer(job, None, b"answer", [])])
        assert offsets.jobs_in_hand == JOBS
        commit = KafkaProducer.commit_transaction

        def lost(self: Any) -> None:
            commit(self)
            raise KafkaTimeoutError("the answer to EndTxn was lost")

        monkeypatch.setattr(KafkaProducer, "commit_transaction", lost)
        with pytest.raises(SinkFailedError):
            until(lambda: sink.settle(flush=True), TIMEOUT_S, "a transaction")
        monkeypatch.undo()
        source.rewind()
        source._consumer._subscription.rebalance_listener.on_partitions_revoked([TopicPartition(topics.jobs, 0)])
        assert source.release(5)
        assert not source.commit(5)
        assert _committed(kafka, topics) == JOBS
    finally:
        sink.close(5)
        source.close(5)


def _committed(kafka: LocalKafka, topics: Topics) -> int | None:
    with KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=topics.jobs) as consumer:
        offset: int | None = consumer.committed(TopicPartition(topics.jobs, 0), timeout_ms=10_000)
        return offset
