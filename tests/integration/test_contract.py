"""The wire contract from outside: a client of another library that knows nothing but the contract.

Nothing of `schemas` or `consumer` is used to write a job or to read its answer.
"""

import json
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import Topics, fresh_topics
from tests.replica import Replica, options, replica, until

Headers = list[tuple[str, bytes | None]]


class Stranger:
    """Publishes jobs and reads answers with librdkafka."""

    def __init__(self, bootstrap_servers: str, topics: Topics) -> None:
        self._topics = topics
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0})
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
        )
        self._consumer.assign(
            [
                TopicPartition(topic, partition, 0)
                for topic in (topics.predictions, topics.dead_letters)
                for partition in range(2)
            ]
        )
        self._answers: dict[str, Any] = {}

    def publish(self, value: bytes | None, headers: Headers, key: bytes | None = None, partition: int = -1) -> str:
        """Publish a job; its position."""
        placed: list[str] = []

        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            placed.append(f"{message.topic()}/{message.partition()}/{message.offset()}")

        where = {"partition": partition} if partition >= 0 else {}
        self._producer.produce(self._topics.jobs, value, key, headers=headers, on_delivery=delivered, **where)
        assert self._producer.flush(10) == 0
        return placed[0]

    def answer(self, position: str, timeout_s: float = 30) -> Any:
        """The prediction or dead letter of the job at this position."""
        deadline = time.monotonic() + timeout_s
        while position not in self._answers and time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            if message is not None:
                assert message.error() is None, message.error()
                named = dict(message.headers())
                of = named.get("job-position") or named["dlq-position"]
                self._answers[of.decode()] = message
        assert position in self._answers, f"no answer for {position}"
        return self._answers[position]

    def prediction(self, value: bytes, headers: Headers, key: bytes | None = None) -> tuple[dict[str, bytes], Any]:
        """Publish, and the prediction's headers and value (bytes)."""
        message = self.answer(self.publish(value, headers, key))
        assert message.topic() == self._topics.predictions, dict(message.headers())
        assert message.key() == key
        return dict(message.headers()), message.value()

    def dead_letter(self, value: bytes | None, headers: Headers, key: bytes | None = None) -> dict[str, bytes]:
        """Publish, and the dead letter's headers; the job in it is checked to be the job as it was."""
        position = self.publish(value, headers, key)
        message = self.answer(position)
        assert message.topic() == self._topics.dead_letters, dict(message.headers())
        assert message.key() == key
        assert message.value() == value
        assert message.headers()[: len(headers)] == [(name, content or b"") for name, content in headers]
        added = dict(message.headers()[len(headers) :])
        assert added["dlq-position"].decode() == position
        assert added["dlq-stage"].decode() in {"decode", "route", "load", "predict", "publish"}
        assert len(added["dlq-message"]) <= 512
        assert abs(int(added["dlq-failed-at"]) - time.time() * 1000) < 60_000
        assert added["dlq-consumer"]
        return added


@pytest.fixture(scope="module")
def topics(kafka: LocalKafka) -> Topics:
    return fresh_topics(kafka)


@pytest.fixture(scope="module")
def consumer(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    with replica(
        tmp_path_factory.mktemp("log") / "replica.log",
        **options(kafka, topics, store, PRELOAD=stores.DOUBLE, MAX_JOB_ROWS=100),
    ) as process:
        yield process.wait_ready()
        assert process.stop() == 0


@pytest.fixture(scope="module")
def stranger(kafka: LocalKafka, topics: Topics, consumer: Replica) -> Stranger:
    return Stranger(kafka.bootstrap_servers, topics)


def floats(*rows: list[float], name: str = "x") -> dict[str, Any]:
    flat = [number for row in rows for number in row]
    return {
        "name": name,
        "datatype": "FP32",
        "shape": [len(rows), len(rows[0])],
        "data": struct.pack(f"<{len(flat)}f", *flat),
    }


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    packed: bytes = msgpack.packb({"inputs": list(inputs), **more})
    return packed


def to(model: str, **more: bytes) -> Headers:
    return [("model-key", model.encode()), *((name.replace("_", "-"), value) for name, value in more.items())]


# predictions -------------------------------------------------------------------------------------------------------


def test_a_job_in_msgpack(stranger: Stranger) -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers, value = stranger.prediction(
        body(floats([1.5, 2.0], [3.0, -4.0]), id="job-1", parameters={"a": [1, None, b"\x00"]}),
        to(stores.DOUBLE, correlation_id=b"\xff\x00", traceparent=trace, tracestate=b"k=v"),
        key=b"customer-7",
    )
    assert headers["model-key"] == b"double"
    assert headers["model-version"] == b"1"
    assert headers["content-type"] == b"application/msgpack"
    assert headers["correlation-id"] == b"\xff\x00"
    assert headers["tracestate"] == b"k=v"
    assert headers["traceparent"][:36] == trace[:36]
    assert headers["traceparent"][36:52] != trace[36:52]
    assert headers["traceparent"][52:] == trace[52:]
    assert msgpack.unpackb(value) == {
        "id": "job-1",
        "model_name": "double",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": struct.pack("<4f", 3.0, 4.0, 6.0, -8.0)}
        ],
        "parameters": {"a": [1, None, b"\x00"]},
    }


def test_a_job_in_json_has_its_prediction_in_json(stranger: Stranger) -> None:
    job = '{"inputs": [{"name": "any", "datatype": "FP32", "shape": [2, 1], "data": [[NaN], [-Infinity]]}]}'
    headers, value = stranger.prediction(job.encode(), to(stores.DOUBLE, content_type=b"application/json"))
    assert headers["content-type"] == b"application/json"
    assert "correlation-id" not in headers
    assert "traceparent" not in headers
    prediction = json.loads(value)
    assert "id" not in prediction
    [output] = prediction["outputs"]
    assert output["shape"] == [2, 1]
    assert str(output["data"]) == "[nan, -inf]"


def test_several_named_inputs_and_chosen_outputs(stranger: Stranger) -> None:
    b = {"name": "b", "datatype": "INT32", "shape": [1, 2], "data": [10, 20]}
    _, value = stranger.prediction(
        body(b, floats([1.0, 2.0], name="a"), outputs=[{"name": "difference"}]), to(stores.SUM)
    )
    [output] = msgpack.unpackb(value)["outputs"]
    assert output["name"] == "difference"
    assert struct.unpack("<2f", output["data"]) == (-9.0, -18.0)


def test_strings(stranger: Stranger) -> None:
    text = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["straw", b"berry"]}
    _, value = stranger.prediction(body(text), to(stores.UPPER))
    [output] = msgpack.unpackb(value)["outputs"]
    assert output == {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": [b"STRAW", b"BERRY"]}


def test_zero_rows_give_zero_rows(stranger: Stranger) -> None:
    none = {"name": "x", "datatype": "FP32", "shape": [0, 3], "data": b""}
    _, value = stranger.prediction(body(none), to(stores.DOUBLE))
    [output] = msgpack.unpackb(value)["outputs"]
    assert (output["shape"], output["data"]) == ([0, 3], b"")


@pytest.mark.parametrize("version", [b"1", b"01", b"000000000000000001"])
def test_a_version_by_number(stranger: Stranger, version: bytes) -> None:
    headers, _ = stranger.prediction(body(floats([1.0])), to(stores.DOUBLE, model_version=version))
    assert headers["model-version"] == b"1"


def test_the_last_of_a_repeated_header_stands(stranger: Stranger) -> None:
    headers, _ = stranger.prediction(body(floats([1.0])), to("nothing") + to(stores.DOUBLE))
    assert headers["model-key"] == b"double"


def test_keyed_predictions_go_where_kafkas_own_partitioner_puts_them(
    kafka: LocalKafka, topics: Topics, stranger: Stranger
) -> None:
    java = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    placed: list[int] = []
    for key in (b"", b"a", b"ab", b"abc", b"abcd", "schlüssel".encode(), bytes(range(256))):
        java.produce(topics.jobs, None, key, on_delivery=lambda _, message: placed.append(message.partition()))
        assert java.flush(10) == 0
        position = stranger.publish(body(floats([1.0])), to(stores.DOUBLE), key=key, partition=1 - placed[-1])
        assert stranger.answer(position).partition() == placed[-1], key


def test_the_predictions_of_a_partition_come_in_the_order_of_its_jobs(stranger: Stranger) -> None:
    positions = [
        stranger.publish(body(floats([float(number)])), to(stores.DOUBLE), key=b"same", partition=0)
        for number in range(50)
    ]
    offsets = [stranger.answer(position).offset() for position in positions]
    assert offsets == sorted(offsets)


# dead letters ------------------------------------------------------------------------------------------------------

GOOD = body(floats([1.0]))
TENSOR = floats([1.0])


@pytest.mark.parametrize(
    ("reason", "stage", "value", "headers"),
    [
        ("bad-header", "decode", GOOD, [("model-key", b"../double")]),
        ("bad-header", "decode", GOOD, [("model-key", b"\xff")]),
        ("bad-header", "decode", GOOD, [("model-key", None)]),
        ("bad-header", "decode", GOOD, to("double", model_version=b"-1")),
        ("bad-header", "decode", GOOD, to("double", content_type=b"text/plain")),
        ("bad-header", "decode", GOOD, to("double", expires_at=b"tomorrow")),
        ("missing-model-key", "route", GOOD, []),
        ("bad-body", "decode", None, to("double")),
        ("bad-body", "decode", b"", to("double")),
        ("bad-body", "decode", b"\xc1garbage", to("double")),
        ("bad-body", "decode", b"{}", to("double", content_type=b"application/json")),
        ("bad-body", "decode", body(TENSOR | {"shape": [2, 1]}), to("double")),
        ("bad-body", "decode", body(TENSOR | {"shape": [-1, 1]}), to("double")),
        ("bad-body", "decode", body(TENSOR | {"shape": [1.0, 1]}), to("double")),
        ("bad-body", "decode", body(), to("double")),
        ("too-large", "decode", body(TENSOR | {"shape": [101, 1]}), to("double")),
        ("too-large", "decode", body(TENSOR | {"shape": [1] * 9}), to("double")),
        ("too-large", "decode", body(TENSOR | {"shape": [0, 400_000_000], "data": b""}), to("double")),
        ("too-large", "decode", body(*[TENSOR] * 65), to("double")),
        ("too-large", "decode", GOOD, [*to("double"), ("x", b"x" * 70_000)]),
        ("expired", "decode", GOOD, to("double", expires_at=b"1")),
        ("unknown-model", "route", GOOD, to("no-such-model")),
        ("unknown-version", "route", GOOD, to("double", model_version=b"7")),
        ("unknown-version", "route", GOOD, to("double", model_version=b"stable")),
        ("model-corrupt", "load", GOOD, to("broken")),
        ("bad-input", "predict", body(TENSOR | {"datatype": "INT32"}), to("double")),
        ("bad-input", "predict", body(TENSOR | {"shape": []}), to("double")),
        ("bad-input", "predict", body(TENSOR | {"shape": [1]}), to("double")),
        ("bad-input", "predict", body(TENSOR, TENSOR), to("double")),
        ("bad-input", "predict", body(floats([1.0, 2.0])), to("fussy")),
        ("bad-input", "predict", body(TENSOR, outputs=[{"name": "z"}]), to("double")),
        ("inference-failed", "predict", body(floats([-1.0])), to("fussy")),
        ("output-too-large", "publish", body(floats([1.0])), to("wide")),
    ],
)
def test_what_is_wrong_with_a_job_is_its_dead_letters_reason(
    stranger: Stranger, reason: str, stage: str, value: bytes | None, headers: Headers
) -> None:
    letter = stranger.dead_letter(value, headers, key=b"k")
    assert (letter["dlq-reason"].decode(), letter["dlq-stage"].decode()) == (reason, stage), letter["dlq-message"]


@pytest.mark.parametrize(
    ("reason", "value", "headers"),
    [
        ("bad-header", body(TENSOR | {"shape": [101, 1]}), to("../x")),
        ("too-large", body(TENSOR | {"shape": [101, 1]}), to("no-such-model", expires_at=b"1")),
        ("expired", b"garbage", to("no-such-model", expires_at=b"1")),
        ("unknown-model", b"garbage", to("no-such-model")),
        ("model-corrupt", b"garbage", to("broken")),
        ("bad-body", b"garbage", to("double")),
    ],
)
def test_the_first_reason_of_the_contracts_order_is_given(
    stranger: Stranger, reason: str, value: bytes, headers: Headers
) -> None:
    assert stranger.dead_letter(value, headers)["dlq-reason"].decode() == reason


def test_a_job_that_fails_touches_no_other_of_its_batch(stranger: Stranger) -> None:
    values = [float(number) if number % 7 else -1.0 for number in range(1, 50)]
    positions = [stranger.publish(body(floats([value])), to(stores.FUSSY), partition=0) for value in values]
    for value, position in zip(values, positions, strict=True):
        message = stranger.answer(position)
        headers = dict(message.headers())
        if value < 0:
            assert headers["dlq-reason"] == b"inference-failed"
        else:
            [output] = msgpack.unpackb(message.value())["outputs"]
            assert struct.unpack("<f", output["data"]) == (value,)


def test_a_corrupt_model_says_how_often_it_was_tried(stranger: Stranger) -> None:
    assert int(stranger.dead_letter(GOOD, to("broken"))["dlq-attempts"]) >= 1


def test_older_dead_letter_headers_are_replaced(stranger: Stranger) -> None:
    position = stranger.publish(GOOD, [("dlq-reason", b"old"), ("a", b"1"), ("dlq-x", b"old"), ("a", b"2")])
    headers = stranger.answer(position).headers()
    assert headers[:2] == [("a", b"1"), ("a", b"2")]
    assert [value for name, value in headers if name == "dlq-reason"] == [b"missing-model-key"]
    assert "dlq-x" not in dict(headers)


def test_the_payload_is_in_neither_message_nor_log(stranger: Stranger, consumer: Replica) -> None:
    secret = b"s3cr3t-payload"
    letter = stranger.dead_letter(b"\xc1" + secret, [*to("double"), ("x", secret)])
    assert secret not in letter["dlq-message"]
    until(lambda: consumer.events("dead letters"), 10, "a line about dead letters")
    assert secret.decode() not in str(consumer.events())


# the process -------------------------------------------------------------------------------------------------------


def test_each_model_was_loaded_once(stranger: Stranger, consumer: Replica) -> None:
    for _ in range(3):
        stranger.prediction(GOOD, to(stores.DOUBLE))
    loads = [event for event in consumer.events("model loaded") if event["model"] == stores.DOUBLE]
    assert len(loads) == 1
    assert loads[0]["version"] == 1
    assert loads[0]["path"] == "double/1/saved_model.pb"
    assert loads[0]["format"] == "savedmodel"
    assert loads[0]["seconds"] > 0


def test_it_lives_and_is_ready(consumer: Replica) -> None:
    assert consumer.get("/livez")[0] == 200
    status, document = consumer.get("/readyz")
    assert (status, document["ok"], document["reasons"]) == (200, True, [])
    assert document["partitions"] == [0, 1]
