"""The publisher's client against a real broker; in the consumer's place a responder written by hand."""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from consumer.local import LocalKafka
from schemas import (
    BrokerUnavailableError,
    ContentType,
    DeadLetter,
    Job,
    JobClient,
    JobFailedError,
    OutcomeReader,
    Prediction,
    PredictTimeoutError,
    Reason,
    RecordTooLargeError,
    Stage,
    TopicMissingError,
)
from tests.conftest import Topics, fresh_topics

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)
PATIENCE_S = 30.0


def client_of(kafka: LocalKafka, topics: Topics, **options: Any) -> JobClient:
    return JobClient(
        kafka.bootstrap_servers,
        **{
            "jobs_topic": topics.jobs,
            "predictions_topic": topics.predictions,
            "dead_letters_topic": topics.dead_letters,
            **options,
        },
    )


def reader_of(kafka: LocalKafka, topics: Topics, **options: Any) -> OutcomeReader:
    return OutcomeReader(
        kafka.bootstrap_servers,
        predictions_topic=topics.predictions,
        dead_letters_topic=topics.dead_letters,
        **options,
    )


@contextmanager
def producer_of(kafka: LocalKafka, **options: Any) -> Iterator[Any]:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, **options)
    try:
        yield producer
    finally:
        producer.close(timeout=10)


def read_all(kafka: LocalKafka, topic: str, count: int) -> list[Any]:
    """The first `count` records of a topic."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)])
        records: list[Any] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(records) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} records"
            records += [record for polled in consumer.poll(timeout_ms=200).values() for record in polled]
        return records
    finally:
        consumer.close()


def outcomes(reader: OutcomeReader, enough: Callable[[list[Prediction | DeadLetter]], bool]) -> list[Any]:
    got: list[Prediction | DeadLetter] = []
    deadline = time.monotonic() + PATIENCE_S
    while not enough(got):
        assert time.monotonic() < deadline, f"{len(got)} outcomes, {reader.skipped} skipped"
        got += reader.poll(0.2)
    return got


def answer(record: Any, producer: Any, topics: Topics) -> None:
    """What a consumer would write for a job, by the contract."""
    headers = dict(record.headers)
    position = f"{record.topic}/{record.partition}/{record.offset}".encode()
    model = headers["model-key"]
    if model == b"echo":
        request = msgpack.unpackb(record.value)
        value = msgpack.packb({"model_name": "echo", "model_version": "3", "outputs": request["inputs"]})
        echoed = [
            ("model-key", model),
            ("model-version", b"3"),
            ("content-type", b"application/msgpack"),
            ("correlation-id", headers["correlation-id"]),
            ("job-position", position),
        ]
        producer.send(topics.predictions, value, key=record.key, headers=echoed)
    elif model in {b"fail", b"fail-bare"}:
        # `fail-bare`: a job whose headers did not fit the dead-letter topic.
        own = record.headers if model == b"fail" else []
        reasons = [
            ("dlq-reason", b"bad-input"),
            ("dlq-stage", b"predict"),
            ("dlq-message", b"not this shape"),
            ("dlq-position", position),
            ("dlq-failed-at", b"1700000000000"),
            ("dlq-consumer", b"by-hand"),
        ]
        producer.send(topics.dead_letters, record.value, key=record.key, headers=[*own, *reasons])


@pytest.fixture
def responder(kafka: LocalKafka, topics: Topics) -> Iterator[None]:
    """Answers every job of the test's topic until the test ends."""
    stop = threading.Event()
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topics.jobs, number) for number in consumer.partitions_for_topic(topics.jobs)])

    def respond() -> None:
        with producer_of(kafka) as producer:
            while not stop.is_set():
                for records in consumer.poll(timeout_ms=100).values():
                    for record in records:
                        answer(record, producer, topics)

    thread = threading.Thread(target=respond)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        consumer.close()


def test_a_published_job_stands_where_it_says(kafka: LocalKafka, topics: Topics) -> None:
    with client_of(kafka, topics) as client:
        published = client.publish("digits", ROW, version="stable", key=b"k", correlation_id="c", id="one")
    [record] = read_all(kafka, topics.jobs, 1)
    position = published.position
    assert (position.topic, position.partition, position.offset) == (record.topic, record.partition, record.offset)
    assert published.correlation_id == b"c"
    assert (record.key, record.headers) == (
        b"k",
        [
            ("content-type", b"application/msgpack"),
            ("correlation-id", b"c"),
            ("model-key", b"digits"),
            ("model-version", b"stable"),
        ],
    )
    assert msgpack.unpackb(record.value) == {
        "id": "one",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW.tobytes()}],
    }


def test_many_jobs_are_acknowledged_in_order(kafka: LocalKafka, topics: Topics) -> None:
    jobs = (Job("digits", ROW, correlation_id=str(number)) for number in range(500))
    with client_of(kafka, topics) as client:
        published = list(client.publish_many(jobs, max_outstanding=50))
    assert [job.correlation_id for job in published] == [b"%d" % number for number in range(500)]
    at = {(record.partition, record.offset): record for record in read_all(kafka, topics.jobs, 500)}
    for job in published:
        record = at[job.position.partition, job.position.offset]
        assert dict(record.headers)["correlation-id"] == job.correlation_id


@pytest.mark.usefixtures("responder")
def test_a_job_becomes_its_prediction(kafka: LocalKafka, topics: Topics) -> None:
    with client_of(kafka, topics) as client:
        for number in range(3):
            outputs = client.predict("echo", {"y": ROW + number, "words": np.array([["é"]])}, timeout_s=PATIENCE_S)
            assert outputs["y"].tolist() == (ROW + number).tolist()
            assert outputs["y"].dtype == np.float32
            assert outputs["words"].tolist() == [["é".encode()]]


@pytest.mark.usefixtures("responder")
@pytest.mark.parametrize("model", ["fail", "fail-bare"])
def test_a_job_that_failed_says_why(kafka: LocalKafka, topics: Topics, model: str) -> None:
    with (
        client_of(kafka, topics) as client,
        pytest.raises(JobFailedError, match=r"bad-input.*not this shape") as failed,
    ):
        client.predict(model, ROW, timeout_s=PATIENCE_S)
    assert (failed.value.reason, failed.value.stage) == (Reason.BAD_INPUT, Stage.PREDICT)
    assert failed.value.message == "not this shape"
    assert failed.value.dead_letter.consumer == "by-hand"


@pytest.mark.usefixtures("responder")
def test_no_answer_in_time_is_an_error_and_the_next_job_has_its_own(kafka: LocalKafka, topics: Topics) -> None:
    with client_of(kafka, topics) as client:
        with pytest.raises(PredictTimeoutError, match=f"{topics.jobs}.*within 0.5 s"):
            client.predict("silent", ROW, timeout_s=0.5)
        assert client.predict("echo", ROW, timeout_s=PATIENCE_S)["input"].tolist() == ROW.tolist()


def test_a_missing_topic_is_named(kafka: LocalKafka, topics: Topics) -> None:
    missing = f"missing-{uuid.uuid4().hex}"
    with pytest.raises(TopicMissingError, match=missing), client_of(kafka, topics, jobs_topic=missing):
        pass
    with client_of(kafka, topics, predictions_topic=missing) as client, pytest.raises(TopicMissingError, match=missing):
        client.predict("digits", ROW)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    assert missing not in admin.list_topics()
    admin.close()


def test_no_broker_is_told_with_its_cause() -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else gets the port, and nobody answers
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        for opened in (JobClient(address, request_timeout_s=1), OutcomeReader(address, request_timeout_s=1)):
            with pytest.raises(BrokerUnavailableError, match=f"{address}.*REFUSED"), opened:
                pass


@pytest.mark.parametrize("own_limit", [20_000, 1_000_000], ids=["the client refuses", "the broker refuses"])
def test_a_job_that_is_too_large_harms_no_other(kafka: LocalKafka, own_limit: int) -> None:
    topic = f"small-{uuid.uuid4().hex}"
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    configs = {"max.message.bytes": "20000"}
    admin.create_topics({topic: {"num_partitions": 1, "configs": configs}}, wait_for_metadata=True)
    admin.close()
    noise = np.random.default_rng(1).random((1, 10_000))
    with JobClient(kafka.bootstrap_servers, jobs_topic=topic, max_record_bytes=own_limit) as client:
        assert client.publish("digits", ROW).position.offset == 0
        with pytest.raises(RecordTooLargeError, match="send fewer rows"):
            client.publish("digits", noise)
        assert client.publish("digits", ROW).position.offset == 1


def test_a_reader_sees_everything_or_only_what_comes(kafka: LocalKafka, topics: Topics) -> None:
    good = [
        ("model-key", b"m"),
        ("model-version", b"1"),
        ("correlation-id", b"before"),
        ("job-position", b"jobs/0/1"),
    ]
    body = msgpack.packb({"model_name": "m", "model_version": "1", "outputs": []})
    with producer_of(kafka) as producer:
        producer.send(topics.predictions, body, headers=good)
        producer.send(topics.predictions, b"garbage", headers=good)
        producer.send(topics.predictions, body, headers=[])
        producer.send(topics.dead_letters, body, headers=good)
        producer.flush(10)
        with reader_of(kafka, topics, start="earliest") as all_of_it, reader_of(kafka, topics) as from_now:
            producer.send(topics.predictions, body, headers=[*good, ("correlation-id", b"after")])
            producer.flush(10)
            everything = outcomes(all_of_it, lambda got: len(got) == 2 and all_of_it.skipped == 3)
            later = outcomes(from_now, lambda got: len(got) == 1)
    assert {outcome.correlation_id for outcome in everything} == {b"before", b"after"}
    assert [outcome.correlation_id for outcome in later] == [b"after"]
    assert from_now.skipped == 0


def test_a_reader_does_not_see_what_is_not_committed(kafka: LocalKafka, topics: Topics) -> None:
    def headers(correlation_id: bytes) -> list[tuple[str, bytes]]:
        return [
            ("model-key", b"m"),
            ("model-version", b"1"),
            ("correlation-id", correlation_id),
            ("job-position", b"jobs/0/1"),
        ]

    body = msgpack.packb({"model_name": "m", "model_version": "1", "outputs": []})
    with producer_of(kafka, transactional_id=uuid.uuid4().hex) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topics.predictions, body, headers=headers(b"aborted"), partition=0)
        producer.flush(10)
        producer.abort_transaction()
    with producer_of(kafka) as producer, reader_of(kafka, topics, start="earliest") as reader:
        producer.send(topics.predictions, body, headers=headers(b"committed"), partition=0)
        producer.flush(10)
        [outcome] = outcomes(reader, lambda got: len(got) >= 1)
        assert outcome.correlation_id == b"committed"


class _NotUtf8(str):
    """A header name that another client may write and kafka-python cannot read."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


def test_a_record_that_the_client_cannot_parse_is_stepped_over(kafka: LocalKafka, topics: Topics) -> None:
    good = [("model-key", b"m"), ("model-version", b"1"), ("job-position", b"jobs/0/1")]
    body = msgpack.packb({"model_name": "m", "model_version": "1", "outputs": []})
    with producer_of(kafka) as producer, reader_of(kafka, topics) as reader:
        for headers in (good, [(_NotUtf8("ab"), b"x")], good, [(_NotUtf8("ab"), b"x")], good):
            producer.send(topics.predictions, body, headers=headers, partition=0).get(timeout=10)
        got = outcomes(reader, lambda got: len(got) == 3)
        assert all(isinstance(outcome, Prediction) for outcome in got)
        assert reader.skipped == 2


def test_a_reader_is_an_iterator(kafka: LocalKafka, topics: Topics) -> None:
    good = [("model-key", b"m"), ("model-version", b"1"), ("job-position", b"jobs/0/1")]
    body = msgpack.packb({"model_name": "m", "model_version": "1", "outputs": []})
    with producer_of(kafka) as producer, reader_of(kafka, topics) as reader:
        producer.send(topics.predictions, body, headers=good)
        producer.flush(10)
        first = next(iter(reader))
    assert isinstance(first, Prediction)
    assert first.response.model_name == "m"


@pytest.mark.parametrize("content_type", list(ContentType))
def test_the_content_type_is_said(kafka: LocalKafka, topics: Topics, content_type: ContentType) -> None:
    with client_of(kafka, topics, content_type=content_type) as client:
        client.publish("digits", ROW)
    [record] = read_all(kafka, topics.jobs, 1)
    assert dict(record.headers)["content-type"] == content_type.encode()
    assert record.value.startswith(b"{") == (content_type is ContentType.JSON)


def test_a_broker_that_goes_away_ends_no_call_late(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "kafka")
    with LocalKafka() as own:
        topics = fresh_topics(own)
        with client_of(own, topics, request_timeout_s=2) as client:
            client.publish("digits", ROW)
            [node] = own.nodes
            node.kill()
            with pytest.raises(BrokerUnavailableError, match="may yet be published"):
                client.publish("digits", ROW)
            with pytest.raises(BrokerUnavailableError, match="no broker serves this"):
                client.predict("digits", ROW, timeout_s=2)
    assert client._producer is None  # closed, by force: nothing goes on behind the caller's back
