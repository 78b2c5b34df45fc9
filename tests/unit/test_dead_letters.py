"""A dead letter is the job as it came, made to fit its topic."""

import pytest

from consumer.delivery.dead_letters import dead_letter, record_size
from schemas.messages import RawHeaders
from schemas.reasons import Failure, Reason, Stage

FAILURE = Failure(Reason.BAD_BODY, Stage.DECODE, "not msgpack")


def make(
    key: bytes | None, value: bytes | None, headers: RawHeaders, limit: int
) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    return dead_letter(
        key=key,
        value=value,
        headers=headers,
        position="jobs/0/1",
        failure=FAILURE,
        failed_at_ms=5,
        consumer="c",
        limit=limit,
    )


def test_a_job_that_fits_is_forwarded_byte_for_byte() -> None:
    key, value, headers = make(b"k", b"v", [("a", b"1"), ("b", None), ("a", b"2")], 1_000)
    assert (key, value) == (b"k", b"v")
    assert headers[:3] == [("a", b"1"), ("b", b""), ("a", b"2")]
    assert "dlq-truncated" not in dict(headers)


def test_a_value_that_does_not_fit_is_left_out_and_that_is_said() -> None:
    key, value, headers = make(b"k", b"v" * 1_000, [("a", b"1")], 1_000)
    assert (key, value) == (b"k", b"")
    assert headers[0] == ("a", b"1")
    assert dict(headers)["dlq-truncated"] == b"true"


@pytest.mark.parametrize(("key", "headers"), [(b"k", [("a", b"1" * 1_000)]), (b"k" * 1_000, [("a", b"1")])])
def test_headers_or_a_key_that_do_not_fit_are_left_out_too(key: bytes, headers: RawHeaders) -> None:
    its_key, value, its_headers = make(key, b"v", headers, 1_000)
    assert value == b""
    assert dict(its_headers)["dlq-position"] == b"jobs/0/1"
    assert dict(its_headers)["dlq-truncated"] == b"true"
    assert record_size(its_key, value, its_headers) <= 1_000


def test_a_tombstone_stays_one() -> None:
    assert make(b"k", None, (), 1_000)[:2] == (b"k", None)
