"""What a job passes through, with real (if tiny) SavedModels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumer.models.backend import load_tensorflow
from consumer.models.runtime import Loaded
from consumer.models.servable import Servable
from consumer.models.signature import Signature, TensorSpec
from consumer.pipeline.batch import Batch, Batcher
from consumer.pipeline.bind import bind
from consumer.pipeline.decode import HEADER_MEMORY, Decoder
from consumer.pipeline.encode import encode
from consumer.pipeline.forms import Forms, data_of
from consumer.pipeline.job import Answer, Bound, Form, Job
from consumer.pipeline.parking import Parking
from consumer.pipeline.predict import predict
from schemas.codec import encode_request
from schemas.headers import NO_TIMESTAMP
from schemas.limits import Limits
from schemas.messages import ContentType, RawHeaders, Request, Routing, Tensor
from schemas.reasons import Failure, Reason, Stage
from tests import savedmodels

NOW_MS = 1_000_000
LIMIT = 1_000_000


@dataclass(frozen=True)
class Record:
    """A record as the client gives it."""

    value: bytes | None = b""
    headers: RawHeaders = ()
    key: bytes | None = None
    topic: str = "jobs"
    partition: int = 0
    offset: int = 0
    timestamp: int = NO_TIMESTAMP


def signature(*inputs: TensorSpec, rows: int | None = None) -> Signature:
    return Signature(inputs, (TensorSpec("y", "FP32", (None, None)),), rows)


ONE = signature(TensorSpec("x", "FP32", (None, None)))


class Model(Loaded):
    """A model that keeps the shapes it was called with."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.shapes.append(inputs["x"].shape)
        return super().predict(inputs)


def model(servable: Servable, key: str = "m") -> Model:
    return savedmodels.load(servable, Model, key=key)


@dataclass(frozen=True)
class Servables:
    """`x` FP32 [rows, any] -> `y` FP32 [rows, any]."""

    double: Servable
    fussy: Servable
    """The same back, where none is negative."""
    first: Servable
    """The first row alone."""
    pairs: Servable
    """The same back, of exactly two rows of one."""


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> Servables:
    tf = load_tensorflow()
    folder = tmp_path_factory.mktemp("models")

    def fussy(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "secret payload")]):
            return {"y": tf.identity(x)}

    x = tf.TensorSpec([None, None], tf.float32)
    return Servables(
        double=savedmodels.save(folder / "double", lambda x: {"y": x * 2.0}, x=x),
        fussy=savedmodels.save(folder / "fussy", fussy, x=x),
        first=savedmodels.save(folder / "first", lambda x: {"y": x[:1]}, x=x),
        pairs=savedmodels.save(folder / "pairs", lambda x: {"y": x + 0.0}, x=tf.TensorSpec([2, 1], tf.float32)),
    )


@pytest.fixture(scope="module")
def double(servables: Servables) -> Model:
    return model(servables.double)


@pytest.fixture(scope="module")
def fussy(servables: Servables) -> Model:
    return model(servables.fussy, key="fussy")


def form(request: Request) -> Form:
    return Forms().read(encode_request(request, ContentType.MSGPACK), ContentType.MSGPACK, Limits())[0]


TO_M = Routing(model_key="m")


def job(array: NDArray[Any], offset: int = 0, routing: Routing = TO_M, **request: Any) -> Job:
    asked = Request((Tensor("x", array),), **request)
    record = Record(offset=offset, key=b"k")
    return Job(record, 1, 0, routing, form(asked), data_of(asked), asked.id, asked.parameters)


def bound(job: Job, takes: Signature = ONE) -> Bound:
    assert isinstance(job.form, Form)
    result = bind(job.form, takes)
    assert isinstance(result, Bound), result
    return result


def batch_of(model: Loaded, *jobs: Job) -> Batch:
    return Batch(model, jobs, tuple(bound(job, model.signature) for job in jobs))


# decode ------------------------------------------------------------------------------------------------------------

TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
BODY = msgpack.packb({"inputs": [TENSOR]})
TO = ("model-key", b"m")


def read(
    value: bytes | None, *headers: tuple[str, bytes | None], default: str | None = None
) -> tuple[Job, Failure | None]:
    return Decoder(Limits(rows=10), default).read(Record(value, headers), 1, NOW_MS)


def test_a_good_job_is_read() -> None:
    job, failure = read(BODY, TO)
    assert failure is None
    assert isinstance(job.form, Form)
    assert job.size == len(BODY) + len("model-key") + 1 + HEADER_MEMORY


@pytest.mark.parametrize(
    ("inflated", "values"),
    [
        ({"inputs": [TENSOR], "parameters": {"a": [{}] * 1_000}}, 1_000),
        ({"inputs": [TENSOR], "parameters": {str(number): 0 for number in range(1_000)}}, 2_000),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1_000], "data": [b""] * 1_000}]}, 900),
    ],
)
def test_what_takes_more_memory_than_bytes_counts_with_its_memory(inflated: dict[str, Any], values: int) -> None:
    job, _ = read(msgpack.packb(inflated), TO)
    assert isinstance(job.form, Form)
    assert job.size > 64 * values


def test_the_default_model_stands_in_for_a_missing_header() -> None:
    job, failure = read(BODY, default="d")
    assert (failure, job.routing.model_key) == (None, "d")


def test_an_unreadable_body_waits_for_its_model_to_be_known() -> None:
    job, failure = read(b"\xc1", TO)
    assert failure is None
    assert isinstance(job.form, Failure)
    assert job.form.reason is Reason.BAD_BODY


@pytest.mark.parametrize(
    ("reason", "value", "headers"),
    [
        (Reason.BAD_HEADER, b"\xc1", [("model-key", b"/"), ("expires-at", b"1")]),
        (Reason.MISSING_MODEL_KEY, b"\xc1", [("expires-at", b"1")]),
        (Reason.TOO_LARGE, msgpack.packb({"inputs": [TENSOR | {"shape": [11, 1]}]}), [TO, ("expires-at", b"1")]),
        (Reason.TOO_LARGE, b"\xc1", [TO, ("x", b"x" * 65_536)]),
        (Reason.TOO_LARGE, b"\xc1", [TO, *[("", None)] * 1_024, ("expires-at", b"1")]),
        (Reason.EXPIRED, b"\xc1", [TO, ("expires-at", b"%d" % (NOW_MS - 1))]),
    ],
)
def test_the_first_reason_that_holds(reason: Reason, value: bytes, headers: list[tuple[str, bytes]]) -> None:
    _, failure = read(value, *headers)
    assert failure is not None
    assert failure.reason is reason


def test_a_job_expires_past_its_time_and_not_at_it() -> None:
    assert read(BODY, TO, ("expires-at", b"%d" % NOW_MS))[1] is None


NAMES = ["model-key", "model-version", "expires-at", "content-type", "traceparent", "x"]
ANY_HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.binary(max_size=40))), max_size=6)


@given(st.one_of(st.none(), st.binary(max_size=200)), ANY_HEADERS)
def test_whatever_comes_is_a_job_or_a_failure(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    job, failure = read(value, *headers)
    assert failure is not None or isinstance(job.form, Form | Failure)


# bind --------------------------------------------------------------------------------------------------------------

TWO = signature(TensorSpec("a", "FP32", (None, 2)), TensorSpec("b", "INT32", (None, None)))
A, B = Tensor("a", np.zeros((3, 2), "f4")), Tensor("b", np.zeros((3, 5), "i4"))


@pytest.mark.parametrize("inputs", [(A, B), (B, A)])
def test_inputs_are_found_by_name(inputs: tuple[Tensor, ...]) -> None:
    result = bind(form(Request(inputs)), TWO)
    assert isinstance(result, Bound)
    assert result.names == ("a", "b")
    assert [inputs[place].name for place in result.order] == ["a", "b"]
    assert (result.rows, result.layout) == (3, ((2,), (5,)))


def test_a_model_of_one_input_takes_its_tensor_by_any_name() -> None:
    result = bind(form(Request((Tensor("whatever", np.zeros((1, 1), "f4")),))), ONE)
    assert isinstance(result, Bound)
    assert result.names == ("x",)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request((A,)), "takes 2: 'a', 'b'"),
        (Request((A, A)), "each to be sent once"),
        (Request((A, Tensor("c", B.array))), "each to be sent once"),
        (Request((A, Tensor("b", np.zeros((3, 5), "i8")))), "INT64"),
        (Request((A, Tensor("b", np.zeros((2, 5), "i4")))), "2 rows and another input 3"),
        (Request((A, Tensor("b", np.zeros(3, "i4")))), "shape [3]; the model takes [any, any]"),
        (Request((A, Tensor("b", np.zeros((), "i4")))), "rank 0"),
        (Request((Tensor("a", np.zeros((3, 3), "f4")), B)), "shape [3, 3]; the model takes [any, 2]"),
        (Request((A, B), outputs=("z",)), "it has 'y'"),
    ],
)
def test_what_the_model_does_not_take(request_: Request, says: str) -> None:
    result = bind(form(request_), TWO)
    assert isinstance(result, Failure)
    assert (result.reason, result.stage) == (Reason.BAD_INPUT, Stage.PREDICT)
    assert says in result.message


def test_a_model_of_a_fixed_number_of_rows_takes_no_other() -> None:
    fixed = signature(TensorSpec("x", "FP32", (4, 1)), rows=4)
    assert isinstance(bind(form(Request((Tensor("x", np.zeros((4, 1), "f4")),))), fixed), Bound)
    assert isinstance(bind(form(Request((Tensor("x", np.zeros((3, 1), "f4")),))), fixed), Failure)


def test_an_output_asked_for_twice_is_given_once() -> None:
    result = bind(form(Request((A, B), outputs=("y", "y"))), TWO)
    assert isinstance(result, Bound)
    assert result.outputs == ("y",)


# batch -------------------------------------------------------------------------------------------------------------


def fill(batcher: Batcher, model: Loaded, *jobs: Job, now: float = 0) -> None:
    for one in jobs:
        batcher.add(one, model, bound(one, model.signature), now)


def sizes(batcher: Batcher) -> Iterator[list[int]]:
    while batch := batcher.next(0):
        yield [job.record.offset for job in batch.jobs]


def test_a_batch_takes_what_has_come_up_to_its_rows(double: Model) -> None:
    batcher = Batcher(max_rows=4, max_delay_s=0)
    fill(batcher, double, *[job(np.zeros((2, 1), "f4"), offset) for offset in range(5)])
    assert len(batcher) == 5
    assert list(sizes(batcher)) == [[0, 1], [2, 3], [4]]
    assert len(batcher) == 0


def test_a_job_larger_than_a_batch_goes_alone(double: Model) -> None:
    batcher = Batcher(max_rows=4, max_delay_s=0)
    fill(batcher, double, *[job(np.zeros((rows, 1), "f4"), n) for n, rows in enumerate((1, 9, 1))])
    assert list(sizes(batcher)) == [[0], [1], [2]]


def test_only_jobs_of_one_layout_share_a_batch_and_none_overtakes(double: Model) -> None:
    batcher = Batcher(max_rows=100, max_delay_s=0)
    fill(batcher, double, *[job(np.zeros((1, width), "f4"), n) for n, width in enumerate((2, 2, 3, 2))])
    assert list(sizes(batcher)) == [[0, 1], [2], [3]]


def test_models_take_turns(double: Model, fussy: Model) -> None:
    batcher = Batcher(max_rows=1, max_delay_s=0)
    fill(batcher, double, *[job(np.zeros((1, 1), "f4"), n) for n in range(3)])
    fill(batcher, fussy, *[job(np.zeros((1, 1), "f4"), n) for n in (10, 11)])
    assert list(sizes(batcher)) == [[0], [10], [1], [11], [2]]


def test_waiting_for_company_ends_when_full_or_late(double: Model) -> None:
    batcher = Batcher(max_rows=2, max_delay_s=1)
    fill(batcher, double, job(np.zeros((1, 1), "f4")), now=10)
    assert batcher.next(10.9) is None
    assert batcher.next(11) is not None
    fill(batcher, double, job(np.zeros((1, 1), "f4")), now=20)
    assert batcher.next(20, flush=True) is not None
    fill(batcher, double, *[job(np.zeros((1, 1), "f4"))] * 2, now=30)
    assert batcher.next(30) is not None


def test_a_model_of_fixed_rows_gets_one_job_a_call(servables: Servables) -> None:
    fixed = model(servables.pairs)
    assert fixed.signature.rows == 2
    batcher = Batcher(max_rows=100, max_delay_s=0)
    fill(batcher, fixed, *[job(np.zeros((2, 1), "f4"), n) for n in range(2)])
    assert list(sizes(batcher)) == [[0], [1]]


# predict and encode ------------------------------------------------------------------------------------------------


def answers(batch: Batch) -> dict[int, Any]:
    """Offset -> the decoded outputs of its prediction, or its Failure."""
    found: dict[int, Any] = {}
    for part in predict(batch):
        for one, out in encode(batch.model, part, LIMIT):
            if isinstance(out, Answer):
                outputs = msgpack.unpackb(out.value)["outputs"]
                found[one.record.offset] = {
                    output["name"]: np.frombuffer(output["data"], "<f4").reshape(output["shape"]) for output in outputs
                }
            else:
                found[one.record.offset] = out
    return found


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_every_job_gets_its_own_rows_back(double: Model, rows: list[int]) -> None:
    arrays = [np.arange(count * 3, dtype="f4").reshape(count, 3) + 100 * n for n, count in enumerate(rows)]
    found = answers(batch_of(double, *[job(array, n) for n, array in enumerate(arrays)]))
    assert list(found) == list(range(len(rows)))
    for n, array in enumerate(arrays):
        np.testing.assert_array_equal(found[n]["y"], array * 2)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_a_failing_batch_is_split_until_the_jobs_at_fault_stand_alone(fussy: Model, good: list[bool]) -> None:
    fussy.shapes.clear()
    jobs = [job(np.full((1, 1), n if fine else -1, "f4"), n) for n, fine in enumerate(good)]
    found = answers(batch_of(fussy, *jobs))
    assert list(found) == list(range(len(good)))
    for n, fine in enumerate(good):
        if fine:
            assert found[n]["y"] == [[n]]
        else:
            assert found[n].reason is Reason.INFERENCE_FAILED
            assert found[n].message == "the model failed on this job: InvalidArgument"
    assert len(fussy.shapes) < 2 * len(good)


def test_outputs_that_do_not_follow_the_rows_are_the_models_failure(servables: Servables) -> None:
    found = answers(batch_of(model(servables.first), job(np.ones((2, 1), "f4"), 0)))
    assert found[0].reason is Reason.INFERENCE_FAILED
    assert "rows" in found[0].message


def test_a_prediction_carries_what_its_job_asked_to_have_echoed(double: Model) -> None:
    routing = Routing(model_key="m", content_type=ContentType.JSON, correlation_id=b"\xff")
    one = job(np.ones((1, 1), "f4"), 7, routing, id="i", parameters={"p": 1})
    [part] = predict(batch_of(double, one))
    [(same, out)] = encode(double, part, LIMIT)
    assert same is one
    assert isinstance(out, Answer)
    assert out.value is not None
    assert out.key == b"k"
    assert out.headers == [
        ("model-key", b"m"),
        ("model-version", b"3"),
        ("content-type", b"application/json"),
        ("correlation-id", b"\xff"),
        ("job-position", b"jobs/0/7"),
    ]
    import json

    assert json.loads(out.value)["parameters"] == {"p": 1}


# parking -----------------------------------------------------------------------------------------------------------


def test_parked_jobs_leave_in_order_and_by_model() -> None:
    parking = Parking()
    jobs = [job(np.zeros((1, 1), "f4"), n) for n in range(4)]
    for n, one in enumerate(jobs):
        parking.park("ab"[n % 2], one)
    assert len(parking) == 4
    assert parking.partitions == {0}
    assert list(parking.leave(["a", "nobody"])) == [jobs[0], jobs[2]]
    assert len(parking) == 2
    parking.clear()
    assert list(parking.leave(["b"])) == []


def test_a_batch_without_rows_runs_on_one_that_is_thrown_away(servables: Servables) -> None:
    double = model(servables.double)
    found = answers(batch_of(double, job(np.zeros((0, 5), "f4"))))
    assert double.shapes == [(1, 5)]
    assert found[0]["y"].shape == (0, 5)


def test_jobs_of_a_version_wait_behind_those_that_any_version_may_answer() -> None:
    parking = Parking()
    named = job(np.zeros((1, 1), "f4"))
    named.routing = Routing(model_key="m", version=1)
    parking.park("m", named)
    assert not parking.must_precede("m")
    parking.park("m", job(np.zeros((1, 1), "f4")))
    assert parking.must_precede("m")
    assert not parking.must_precede("other")
    assert len(list(parking.leave(["m"]))) == 2
    assert not parking.must_precede("m")


def test_a_version_that_was_loaded_again_does_not_overtake_itself(servables: Servables) -> None:
    old, new = model(servables.double), model(servables.double)
    batcher = Batcher(max_rows=1, max_delay_s=0)
    fill(batcher, old, *[job(np.zeros((1, 1), "f4"), n) for n in (0, 1)])
    fill(batcher, new, *[job(np.zeros((1, 1), "f4"), n) for n in (2, 3)])
    batches = list(iter(lambda: batcher.next(0), None))
    assert [batch.jobs[0].record.offset for batch in batches] == [0, 1, 2, 3]
    assert [batch.model for batch in batches] == [old, old, new, new]


@pytest.mark.parametrize("content_type", list(ContentType))
def test_a_prediction_that_cannot_fit_is_not_encoded(
    monkeypatch: pytest.MonkeyPatch, double: Model, content_type: ContentType
) -> None:
    large = job(np.zeros((1, LIMIT), "f4"), routing=Routing(model_key="m", content_type=content_type))
    [part] = predict(batch_of(double, large))
    monkeypatch.setattr("consumer.pipeline.encode.encode_response", None)  # it would be called in vain
    [(_, out)] = encode(double, part, LIMIT)
    assert isinstance(out, Failure)
    assert (out.reason, out.stage) == (Reason.OUTPUT_TOO_LARGE, Stage.PUBLISH)
