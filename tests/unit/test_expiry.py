"""Jobs that come too late, when they are read and when they are to be predicted."""

import msgpack
import pytest

from consumer.models.runtime import Loaded
from consumer.pipeline.batch import Batch
from consumer.pipeline.decode import Decoder
from consumer.pipeline.expiry import deadline, expired, sift
from consumer.pipeline.job import Bound, Form, Job
from schemas.headers import NO_TIMESTAMP
from schemas.limits import Limits
from schemas.messages import Routing
from schemas.reasons import Failure, Reason, Stage
from tests.unit.test_pipeline import Record

NOW_MS = 1_000_000
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
BODY = msgpack.packb({"inputs": [TENSOR]})


@pytest.mark.parametrize(
    ("expires_at", "timestamp_ms", "max_age_ms", "expected"),
    [
        (None, 500, None, None),
        (700, 500, None, 700),
        (None, 500, 100, 600),
        (700, 500, 100, 600),
        (550, 500, 100, 550),
        (None, NO_TIMESTAMP, 100, None),
        (700, NO_TIMESTAMP, 100, 700),
    ],
)
def test_the_rule_that_comes_first_holds(
    expires_at: int | None, timestamp_ms: int, max_age_ms: int | None, expected: int | None
) -> None:
    assert deadline(Routing(expires_at=expires_at), timestamp_ms, max_age_ms) == expected


def read(
    *headers: tuple[str, bytes], timestamp_ms: int = NO_TIMESTAMP, max_age_ms: int | None = None, body: bytes = BODY
) -> tuple[Job, Failure | None]:
    record = Record(body, (("model-key", b"m"), *headers), timestamp=timestamp_ms)
    return Decoder(Limits(body_bytes=1_000), None, max_age_ms).read(record, 1, NOW_MS)


def test_a_job_older_than_allowed_is_expired_and_says_by_which_rule() -> None:
    _, failure = read(timestamp_ms=NOW_MS - 5_001, max_age_ms=5_000)
    assert failure is not None
    assert (failure.reason, failure.stage) == (Reason.EXPIRED, Stage.DECODE)
    assert failure.message == "LOADONCE_MAX_JOB_AGE_S had passed by 1 ms when the job was read"

    _, failure = read(("expires-at", b"999000"), timestamp_ms=NOW_MS, max_age_ms=5_000)
    assert failure is not None
    assert failure.message == "expires-at had passed by 1000 ms when the job was read"


def test_at_its_last_millisecond_a_job_is_in_time() -> None:
    job, failure = read(timestamp_ms=NOW_MS - 5_000, max_age_ms=5_000)
    assert failure is None
    assert job.deadline_ms == NOW_MS
    assert read(timestamp_ms=0)[1] is None  # no bound


def test_size_comes_before_expiry_and_a_body_after_it() -> None:
    for body, reason in ((b"x" * 2_000, Reason.TOO_LARGE), (b"\xc1", Reason.EXPIRED)):
        _, failure = read(body=body, timestamp_ms=0, max_age_ms=1)
        assert failure is not None
        assert failure.reason is reason


def a_job(deadline_ms: int | None, expires_at: int | None = None) -> Job:
    form = Form(("x",), ("FP32",), ((1, 1),), None)
    return Job(Record(), 1, 0, Routing(model_key="m", expires_at=expires_at), form, deadline_ms=deadline_ms)


def test_a_job_that_waited_too_long_is_told_apart() -> None:
    failure = expired(a_job(900, 900), NOW_MS, Stage.PREDICT)
    assert failure is not None
    assert (failure.stage, failure.message) == (
        Stage.PREDICT,
        "expires-at had passed by 999100 ms when the job was to be predicted",
    )


def batch_of(*jobs: Job) -> Batch:
    model: Loaded = object()  # type: ignore[assignment] # is passed on and never called
    bounds = tuple(Bound((), (), (), number, (), None) for number, _ in enumerate(jobs))
    return Batch(model, jobs, bounds)


def test_a_batch_goes_on_without_what_has_expired() -> None:
    jobs = [a_job(None), a_job(NOW_MS - 1), a_job(NOW_MS), a_job(3)]
    batch, late = sift(batch_of(*jobs), NOW_MS)

    assert batch is not None
    assert batch.jobs == (jobs[0], jobs[2])
    assert [bound.rows for bound in batch.bounds] == [0, 2]
    assert [(job, failure.reason) for job, failure in late] == [(jobs[1], Reason.EXPIRED), (jobs[3], Reason.EXPIRED)]


def test_a_batch_in_time_is_the_same_and_one_too_late_is_none() -> None:
    good = batch_of(a_job(None), a_job(NOW_MS))
    assert sift(good, NOW_MS) == (good, [])
    batch, late = sift(batch_of(a_job(1), a_job(2)), NOW_MS)
    assert (batch, len(late)) == (None, 2)
