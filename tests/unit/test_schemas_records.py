"""Records of the output topics."""

import numpy as np
import pytest

from schemas.codec import encode_response
from schemas.messages import ContentType, Position, Response, Tensor
from schemas.reasons import Failure, Reason, RefusedError, Stage
from schemas.records import dead_letter_headers, read_dead_letter, read_prediction

FAILURE = Failure(Reason.UNKNOWN_MODEL, Stage.ROUTE, "the store has no model of this name")
JOB: list[tuple[str, bytes | None]] = [("b", b"\xff"), ("a", b"1"), ("b", b"2"), ("", None)]


def dead(
    headers: list[tuple[str, bytes | None]], failure: Failure = FAILURE, *, truncated: bool = False
) -> list[tuple[str, bytes]]:
    return dead_letter_headers(
        headers, failure, position="jobs/1/2", failed_at_ms=1_700_000_000_000, consumer="host-1", truncated=truncated
    )


def test_a_dead_letter_has_the_jobs_headers_then_why() -> None:
    assert dead(JOB) == [
        ("b", b"\xff"),
        ("a", b"1"),
        ("b", b"2"),
        ("", b""),
        ("dlq-reason", b"unknown-model"),
        ("dlq-stage", b"route"),
        ("dlq-message", b"the store has no model of this name"),
        ("dlq-position", b"jobs/1/2"),
        ("dlq-failed-at", b"1700000000000"),
        ("dlq-consumer", b"host-1"),
    ]


def test_what_is_not_always_there() -> None:
    failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, "m", attempts=3)
    headers = dict(dead([], failure, truncated=True))
    assert (headers["dlq-attempts"], headers["dlq-truncated"]) == (b"3", b"true")


def test_older_reasons_give_way_and_replays_go_on_counting() -> None:
    first = dead(
        [("a", b"1"), ("dlq-replays", b"2"), ("dlq-attempts", b"9"), ("dlq-other", None), ("dlq-reason", b"x")]
    )
    assert first == [("a", b"1"), ("dlq-replays", b"2"), *dead([])]
    assert dead([*first]) == first


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("one\r\ntwo\x00\x1b[31m\u2028\x85end", b"one  two  [31m  end"),
        ("é" * 400, "é".encode() * 256),
        ("a" + "é" * 400, b"a" + "é".encode() * 255),
        ("\U0001f600" * 200, "\U0001f600".encode() * 128),
        ("x\ud800y", b"x y"),
        ("", b""),
    ],
)
def test_the_message_is_one_line_of_at_most_512_bytes(message: str, line: bytes) -> None:
    assert dict(dead([], Failure(Reason.BAD_BODY, Stage.DECODE, message)))["dlq-message"] == line
    assert len(line) <= 512


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("attempts", [None, 0, 3])
def test_a_dead_letter_reads_as_it_was_written(reason: Reason, attempts: int | None) -> None:
    headers = dead([("correlation-id", b"c"), ("dlq-replays", b"1")], Failure(reason, Stage.LOAD, "why", attempts))
    letter = read_dead_letter(b"key", b"\xc1", headers)
    assert (letter.reason, letter.stage, letter.message, letter.attempts) == (reason, Stage.LOAD, "why", attempts)
    assert letter.position == Position("jobs", 1, 2)
    assert (letter.failed_at, letter.consumer, letter.truncated) == (1_700_000_000_000, "host-1", False)
    assert (letter.key, letter.value, list(letter.headers)) == (b"key", b"\xc1", [("correlation-id", b"c")])
    assert read_dead_letter(None, b"", dead([], truncated=True)).truncated


@pytest.mark.parametrize("name", ["dlq-reason", "dlq-stage", "dlq-position", "dlq-failed-at"])
@pytest.mark.parametrize("value", [None, b"", b"nonsense", b"\xff"])
def test_what_is_no_dead_letter_is_refused(name: str, value: bytes | None) -> None:
    for headers in ([*dead([]), (name, value)], [header for header in dead([]) if header[0] != name]):
        with pytest.raises(RefusedError) as refused:
            read_dead_letter(None, None, headers)
        assert refused.value.reason is Reason.BAD_HEADER


def test_attempts_are_a_number() -> None:
    with pytest.raises(RefusedError):
        read_dead_letter(None, None, [*dead([]), ("dlq-attempts", b"many")])


def test_a_dead_letter_does_not_print_its_job() -> None:
    assert "secret" not in repr(read_dead_letter(b"secret", b"secret", [*dead([("a", b"secret")])]))


PREDICTION = [
    ("model-key", b"digits"),
    ("model-version", b"3"),
    ("content-type", b"application/json"),
    ("job-position", b"jobs/1/2"),
]
BODY = encode_response(Response("digits", "3", (Tensor("y", np.ones((1, 2), "f4")),), id="a"), ContentType.JSON)


def test_a_prediction_is_read() -> None:
    prediction = read_prediction(b"key", BODY, [*PREDICTION, ("correlation-id", b"c")])
    assert (prediction.model_key, prediction.model_version, prediction.position) == (
        "digits",
        3,
        Position("jobs", 1, 2),
    )
    assert (prediction.key, prediction.correlation_id, prediction.response.id) == (b"key", b"c", "a")
    assert prediction.response.outputs[0].array.tolist() == [[1.0, 1.0]]
    assert read_prediction(None, BODY, PREDICTION).correlation_id is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model-key", b""),
        ("model-version", b"stable"),
        ("content-type", b"application/msgpack"),
        ("job-position", b"jobs/1"),
    ],
)
def test_what_is_no_prediction_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(RefusedError):
        read_prediction(None, BODY, [*PREDICTION, (name, value)])
    with pytest.raises(RefusedError):
        read_prediction(
            None, BODY, [header for header in PREDICTION if header[0] != name] if name != "content-type" else []
        )
    with pytest.raises(RefusedError):
        read_prediction(None, None, PREDICTION)
