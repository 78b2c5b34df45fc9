"""What is known of a body without reading it is what reading it says."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.pipeline.decode import Decoder
from consumer.pipeline.forms import MOST, MOST_CHARACTERS, MOST_OF_A_LENGTH
from consumer.pipeline.job import Form, Job
from schemas.frames import MOST_FIXED, frame_of
from schemas.limits import Limits
from schemas.msgpack_body import SMALL
from schemas.reasons import Failure
from tests.unit.test_pipeline import Record

ECHOED = {"parameters": {"a": [1, {"b": b""}]}}


def body(*arrays: Any, more: dict[Any, Any] | None = None, last: dict[Any, Any] | None = None) -> bytes:
    inputs = [
        {"name": f"x{n}", "datatype": "FP32", "shape": list(np.shape(array)), "data": np.array(array, "<f4").tobytes()}
        for n, array in enumerate(arrays)
    ]
    packed: bytes = msgpack.packb((more or {}) | {"inputs": inputs} | (last or {}))
    return packed


def read(value: bytes, decoder: Decoder) -> tuple[Job, Failure | None]:
    return decoder.read(Record(value, [("model-key", b"m")]), 1, 0)


def new() -> Decoder:
    return Decoder(Limits(), None)


def said(job: Job) -> Any:
    """All that a job's body says. Its size in memory is left out: jobs of a known frame share their parameters."""
    if isinstance(job.form, Failure):
        return job.form
    form = job.form
    data = [part.tolist() if isinstance(part, np.ndarray) else bytes(part) for part in job.data]
    return form.names, form.datatypes, form.shapes, form.outputs, data, job.id, job.parameters


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (body([[1.0]]), body([[2.0]])),
        (body([[1.0], [2.0]], [[3, 4], [5, 6]]), body([[9.0], [8.0]], [[7, 6], [5, 4]])),
        (body([[1.0]], more={"id": "one"}), body([[2.0]], more={"id": "two"})),
        (body([[1.0]], last={"id": "1" * 36, "outputs": [{"name": "y"}]}),) * 2,
        (body([[1.0]], more=ECHOED), body([[2.0]], more=ECHOED)),
        (body(np.ones((1, SMALL))), body(np.zeros((1, SMALL)))),
        (body(np.ones((0, 4))),) * 2,
    ],
)  # fmt: skip
def test_a_body_of_a_known_frame_is_compared_and_says_the_same(one: bytes, other: bytes) -> None:
    decoder = new()
    first, _ = read(one, decoder)
    assert isinstance(first.form, Form)
    assert decoder._forms.known(other) is not None
    second, _ = read(other, decoder)
    assert second.form is first.form
    assert said(second) == said(read(other, new())[0])


@pytest.mark.parametrize(
    "unknown",
    [
        msgpack.packb({"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1], "data": b"\x01"}]}),
        msgpack.packb({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}),
        msgpack.packb({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [b"1"]}]}),
        body([[1.0]], more={"parameters": {"a": "b" * MOST_FIXED}}),
        b"\xc1",
    ],
    ids=["BOOL", "a list", "BYTES", "a long frame", "not msgpack"],
)
def test_what_has_to_be_read_each_time(unknown: bytes) -> None:
    decoder = new()
    read(unknown, decoder)
    assert decoder._forms.known(unknown) is None


def test_where_a_key_comes_twice_its_place_says_nothing() -> None:
    tensor = msgpack.packb({"name": "x", "datatype": "UINT8", "shape": [1], "data": b"1"})
    assert frame_of(b"\x81\xa6inputs\x91" + tensor) is not None
    assert frame_of(b"\x82\xa6inputs\x91" + tensor + b"\xa6inputs\x91" + tensor) is None
    twice = b"\x85" + tensor[1:] + b"\xa4data\xc4\x011"
    assert frame_of(b"\x81\xa6inputs\x91" + twice) is None


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from([None, "", "i", "ü", "1" * 36]),
    st.sampled_from([None, {"p": 1}]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_a_body_with_bytes_changed_says_what_reading_it_says(
    widths: list[int], identifier: str | None, parameters: Any, changes: list[tuple[int, int]]
) -> None:
    more = {"id": identifier, "parameters": parameters}
    value = bytearray(body(*[np.ones((1, width)) for width in widths], more=more))
    decoder = new()
    read(bytes(value), decoder)
    for place, byte in changes:
        value[place % len(value)] = byte
    changed, failure = read(bytes(value), decoder)
    afresh, same = read(bytes(value), new())
    assert repr(said(changed)) == repr(said(afresh))
    assert failure == same


def test_no_more_is_remembered_than_a_bound() -> None:
    decoder = new()
    for number in range(2 * MOST):
        read(body(np.ones((1, 1)), more={"x": "y" * number}), decoder)
        read(body(np.ones((1, number))), decoder)
    assert len(decoder._forms._known) <= MOST
    assert len(decoder._forms._forms) <= MOST
    decoder = new()
    for number in range(10):
        read(body(np.ones((1, 1)), more={"x": number}), decoder)
    assert [len(alike) for alike in decoder._forms._known.values()] == [MOST_OF_A_LENGTH]


@pytest.mark.parametrize(("name", "outputs", "kept"), [("x", 1, 1), ("x" * MOST_CHARACTERS, 1, 0), ("x", 1_024, 0)])
def test_names_that_are_long_are_not_remembered(name: str, outputs: int, kept: int) -> None:
    decoder = new()
    tensor = {"name": name, "datatype": "FP32", "shape": [1], "data": bytes(4)}
    asked = [{"name": f"{number:04}"} for number in range(outputs)]
    job, failure = read(msgpack.packb({"inputs": [tensor], "outputs": asked}), decoder)
    assert failure is None
    assert isinstance(job.form, Form)
    assert len(decoder._forms._forms) == kept
