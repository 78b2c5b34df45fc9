"""A job as a publisher writes it."""

from typing import Any

import numpy as np
import pytest

from schemas.client import JobClient
from schemas.codec import decode_request
from schemas.headers import read_routing
from schemas.job import Job, job_record
from schemas.limits import Limits
from schemas.messages import ContentType
from schemas.outcomes import OutcomeReader
from schemas.reasons import RefusedError

ROW = np.zeros((1, 2), np.float32)


def test_a_job_says_only_what_it_was_told() -> None:
    record = job_record(Job("digits", ROW), ContentType.MSGPACK, 0)
    assert record.key is None
    assert [name for name, _ in record.headers] == ["content-type", "correlation-id", "model-key"]
    assert record.correlation_id == dict(record.headers)["correlation-id"]
    assert record.correlation_id != job_record(Job("digits", ROW), ContentType.MSGPACK, 0).correlation_id
    request = decode_request(record.value, ContentType.MSGPACK, Limits())
    assert [tensor.name for tensor in request.inputs] == ["input"]
    assert (request.id, request.outputs, request.parameters) == (None, None, None)


def test_a_job_says_everything_it_was_told() -> None:
    job = Job(
        None,
        {"a": ROW, "b": np.array([["x"]])},
        version=3,
        id="one",
        key=b"k",
        correlation_id="c",
        expires_in_s=1.5,
        outputs=["y"],
        parameters={"p": 1},
        headers=[("tenant", b"\xff")],
    )
    record = job_record(job, ContentType.JSON, 1_000)
    routing = read_routing(record.headers)
    assert (routing.model_key, routing.version, routing.expires_at) == (None, 3, 2_500)
    assert (routing.content_type, routing.correlation_id, record.key) == (ContentType.JSON, b"c", b"k")
    assert record.headers[-1] == ("tenant", b"\xff")
    request = decode_request(record.value, ContentType.JSON, Limits())
    assert (request.id, request.outputs, request.parameters) == ("one", ("y",), {"p": 1})
    assert [(tensor.name, tensor.array.dtype.char) for tensor in request.inputs] == [("a", "f"), ("b", "O")]


def test_nothing_is_cast() -> None:
    record = job_record(Job("m", np.zeros((1, 2))), ContentType.MSGPACK, 0)
    assert decode_request(record.value, ContentType.MSGPACK, Limits()).inputs[0].array.dtype == np.float64
    with pytest.raises(ValueError, match="complex128"):
        job_record(Job("m", np.zeros((1, 2), complex)), ContentType.MSGPACK, 0)


@pytest.mark.parametrize(
    "options",
    [{"model_key": "a/b"}, {"version": -1}, {"version": "a b"}, {"headers": [("content-type", b"x")]}, {"inputs": {}}],
)
def test_what_would_be_a_dead_letter_is_not_published(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        job_record(Job(**{"model_key": "m", "inputs": ROW, **options}), ContentType.MSGPACK, 0)
    assert isinstance(refused.value, RefusedError) == ("inputs" not in options)


@pytest.mark.parametrize("client", [JobClient, OutcomeReader])
def test_options_are_checked_before_anything_is_connected(client: Any) -> None:
    with pytest.raises(ValueError, match="not a security option: group_id"):
        client("localhost:9092", security={"group_id": "x"})
    with pytest.raises(ValueError, match="request_timeout_s is 0"):
        client("localhost:9092", request_timeout_s=0)
