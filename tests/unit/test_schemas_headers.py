"""Record headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.headers import continue_trace, header_bytes, parse_position, read_routing
from schemas.messages import ContentType, Position, Routing
from schemas.reasons import Reason, RefusedError

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

raw_headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "model-key",
                "model-version",
                "content-type",
                "correlation-id",
                "expires-at",
                "traceparent",
                "tracestate",
                "Model-Key",
            ]
        )
        | st.text(),
        st.none() | st.binary(max_size=60) | st.from_regex(r"[0-9a-zA-Z._-]{0,40}").map(str.encode),
    ),
    max_size=8,
)


@given(raw_headers)
def test_any_headers_are_read_or_refused(headers: list[tuple[str, bytes | None]]) -> None:
    try:
        assert isinstance(read_routing(headers), Routing)
    except RefusedError as refused:
        assert refused.reason is Reason.BAD_HEADER
        assert refused.message.isascii()


def test_no_headers_ask_for_nothing() -> None:
    assert read_routing([]) == Routing()


def test_every_header_is_read() -> None:
    headers = [
        ("model-key", b"digits"),
        ("model-version", b"01"),
        ("content-type", b"application/json"),
        ("correlation-id", b"\xff\x00"),
        ("expires-at", b"1700000000000"),
        ("traceparent", TRACE),
        ("tracestate", b"a=1"),
        ("other", b"\xff"),
        ("Model-Key", b"not this"),
    ]
    assert read_routing(headers) == Routing(
        model_key="digits",
        version=1,
        content_type=ContentType.JSON,
        correlation_id=b"\xff\x00",
        expires_at=1_700_000_000_000,
        traceparent=TRACE,
        tracestate=b"a=1",
    )
    assert read_routing([("model-version", b"stable")]) == Routing(alias="stable")


def test_the_last_value_stands() -> None:
    assert read_routing([("model-key", b"/"), ("model-key", b"a"), ("model-key", b"b")]).model_key == "b"
    with pytest.raises(RefusedError):
        read_routing([("model-key", b"a"), ("model-key", None)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, values in {
            "model-key": [b"", b".a", b"-a", b"_a", b"a/b", b"..", b"a b", b"a\n", b"\xff", "é".encode(), b"a" * 129],
            "model-version": [b"", b"1.0", b"-1", b"+1", b" 1", b"1\n", b"1" * 19, b"a" * 65, b"_a", "\u0663".encode()],
            "content-type": [b"", b"text/plain", b"application/json; charset=utf-8", b"Application/JSON", b"\xff"],
            "expires-at": [b"", b"-1", b"1.5", b"1" * 16, b"1\n", b"soon", "\u0663".encode()],
        }.items()
        for value in [*values, None]
    ],
)
def test_what_matches_no_pattern_is_bad_header(name: str, value: bytes | None) -> None:
    with pytest.raises(RefusedError) as refused:
        read_routing([(name, value)])
    assert refused.value.reason is Reason.BAD_HEADER
    assert name in refused.value.message


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(RefusedError) as refused:
        read_routing([("model-key", b"my secret")])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("model-key", b"a" * 128), ("expires-at", b"9" * 15)])
def test_the_longest_values_are_read(name: str, value: bytes) -> None:
    read_routing([(name, value)])
    read_routing([("model-version", b"9" * 18)])
    assert read_routing([("model-version", b"a" * 64)]).alias == "a" * 64


def test_an_empty_correlation_id_is_one() -> None:
    assert read_routing([("correlation-id", None)]).correlation_id == b""


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        TRACE.upper(),
        TRACE + b"\n",
        TRACE + b"-more",
        b"ff" + TRACE[2:],
        b"00-" + b"0" * 32 + TRACE[35:],
        TRACE[:36] + b"0" * 16 + TRACE[52:],
        b"01" + TRACE[2:] + b"more",
        None,
    ],
)
def test_a_malformed_trace_is_ignored(value: bytes | None) -> None:
    assert read_routing([("traceparent", value), ("tracestate", b"a=1")]) == Routing()


def test_a_later_version_of_the_trace_may_have_more() -> None:
    for later in (b"01" + TRACE[2:], b"01" + TRACE[2:] + b"-more"):
        assert read_routing([("traceparent", later)]).traceparent == later
        assert continue_trace(later, 1) == TRACE[:36] + b"0000000000000001-01"


def test_a_trace_is_continued_by_a_new_span() -> None:
    assert continue_trace(TRACE, 0xAB) == TRACE[:36] + b"00000000000000ab-01"
    one, other = continue_trace(TRACE), continue_trace(TRACE)
    assert one != other
    assert read_routing([("traceparent", one)]).traceparent == one
    assert (one[:36], one[52:]) == (TRACE[:36], TRACE[52:])


def test_header_bytes_count_names_and_values() -> None:
    assert header_bytes([]) == 0
    assert header_bytes([("ab", b"cde"), ("é", None), ("ab", b"")]) == 2 + 3 + 2 + 2


def test_a_position_reads_as_it_is_written() -> None:
    position = Position("inference.jobs", 3, 2**62)
    assert parse_position(str(position).encode()) == position


@pytest.mark.parametrize(
    "value", [None, b"", b"a/b/c", b"a/1", b"a/b/1/2", b"a/-1/2", b"a/1/2\n", b"\xff/1/2", b"/1/2"]
)
def test_what_is_no_position_is_refused(value: bytes | None) -> None:
    with pytest.raises(RefusedError):
        parse_position(value)
