"""What is written reads as it was meant, whatever it says: headers, names as bytes, records, dead letters."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.dead_letters import dead_letter, record_size
from schemas.batches import Batch, allow
from schemas.headers import DLQ_PREFIX, DLQ_REPLAYS, RawName, header_bytes, parse_position, read_routing
from schemas.messages import ContentType, Position, Routing
from schemas.reasons import Failure, Reason, Stage
from schemas.records import MAX_MESSAGE_BYTES, read_dead_letter
from tests.fuzz import wire
from tests.fuzz.mutator import Raw
from tests.fuzz.passage import read_by_the_client

names = st.binary(max_size=12) | st.text(max_size=6).map(str.encode) | st.sampled_from([b"dlq-reason", b"dlq-replays"])
raw_headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=20)), max_size=8)
values = st.none() | st.binary(max_size=60)


@given(
    key=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True),
    version=st.none() | st.integers(0, 10**18 - 1) | st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,63}", fullmatch=True),
    content_type=st.sampled_from(ContentType),
    correlation_id=st.none() | st.binary(max_size=20),
    expires_at=st.none() | st.integers(0, 10**15 - 1),
    noise=st.lists(st.tuples(st.text(max_size=6), st.none() | st.binary(max_size=6)), max_size=4),
    data=st.data(),
)
def test_routing_survives_any_order_and_company(
    *,
    key: str,
    version: int | str | None,
    content_type: ContentType,
    correlation_id: bytes | None,
    expires_at: int | None,
    noise: list[tuple[str, bytes | None]],
    data: st.DataObject,
) -> None:
    given_headers: dict[str, Any] = {
        "model-key": key,
        "model-version": version,
        "content-type": content_type.value,
        "correlation-id": correlation_id,
        "expires-at": expires_at,
    }
    headers = [
        (name, value if isinstance(value, bytes) else str(value).encode())
        for name, value in given_headers.items()
        if value is not None
    ]
    company = [header for header in noise if header[0] not in given_headers and not header[0].startswith("trace")]
    assert read_routing(data.draw(st.permutations([*headers, *company]))) == Routing(
        model_key=key,
        version=version if isinstance(version, int) else None,
        alias=version if isinstance(version, str) else None,
        content_type=content_type,
        correlation_id=correlation_id,
        expires_at=expires_at,
    )


@given(st.binary(max_size=30))
def test_a_name_of_any_bytes_comes_back(name: bytes) -> None:
    raw = RawName.of(name)
    assert raw.encode() == raw.encode("ascii", "strict") == name
    assert header_bytes([(raw, b"ab")]) >= 2


@given(
    topic=st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
)
def test_positions(topic: str, partition: int, offset: int) -> None:
    position = Position(topic, partition, offset)
    assert parse_position(str(position).encode()) == position


@given(st.lists(st.tuples(values, values, raw_headers), min_size=1, max_size=4))
def test_records_come_through_the_client_byte_for_byte(
    jobs: list[tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]],
) -> None:
    raws = [Raw(key, value, tuple(headers)) for key, value, headers in jobs]
    read = read_by_the_client(raws, 7)
    assert [(one.offset, one.key, one.value) for one in read] == [
        (7 + index, key, value) for index, (key, value, _) in enumerate(jobs)
    ]
    for one, (_, _, headers) in zip(read, jobs, strict=True):
        assert [(name.encode(), value) for name, value in one.headers] == headers


@given(
    key=values,
    value=values,
    headers=raw_headers,
    reason=st.sampled_from(Reason),
    stage=st.sampled_from(Stage),
    message=st.text(max_size=600),
    attempts=st.none() | st.integers(0, 10**9 - 1),
    limit=st.integers(600, 4_000),
)
def test_a_dead_letter_is_the_job_and_why_and_fits(
    *,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[bytes, bytes | None]],
    reason: Reason,
    stage: Stage,
    message: str,
    attempts: int | None,
    limit: int,
) -> None:
    [job] = read_by_the_client([Raw(key, value, tuple(headers))], 0)

    def bury(headers: Any, message: str) -> Any:
        return dead_letter(
            key=job.key,
            value=job.value,
            headers=headers,
            position="jobs/0/1",
            failure=Failure(reason, stage, message, attempts),
            failed_at_ms=5,
            consumer="c",
            limit=limit,
        )

    dead_key, dead_value, dead_headers = bury(job.headers, message)
    if record_size(*bury((), "")) <= limit and len(message.encode(errors="replace")) < limit - 500:
        assert record_size(dead_key, dead_value, dead_headers) <= limit
    letter = read_dead_letter(dead_key, dead_value, dead_headers)
    assert (letter.reason, letter.stage, letter.attempts) == (reason, stage, attempts)
    assert letter.position == Position("jobs", 0, 1)
    assert letter.message.isprintable()
    assert len(letter.message.encode()) <= MAX_MESSAGE_BYTES
    own = [(name, content or b"") for name, content in headers if not name.startswith(DLQ_PREFIX.encode())]
    if letter.truncated:
        assert dead_value == b""
        return
    assert (letter.key, letter.value) == (key, value)
    assert [(name.encode(), content) for name, content in letter.headers] == own
    # Older dlq-* headers give way, but the count of replays; dead once more, it says the same.
    replays = [content or b"" for name, content in headers if name == DLQ_REPLAYS.encode()]
    assert [content for name, content in dead_headers if name == DLQ_REPLAYS] == replays
    assert sum(name == "dlq-reason" for name, _ in dead_headers) == 1
    assert bury(dead_headers, message) == (dead_key, dead_value, dead_headers)


@given(st.binary(max_size=200), st.integers(0, 4))
def test_of_a_batch_of_any_bytes_the_record_is_there(data: bytes, codec: int) -> None:
    allow(1)
    assert [one.offset for one in Batch(memoryview(wire.batch(data, 1, codec)), "jobs", 0)] == [0]


@given(st.data(), st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3))
def test_of_records_with_bytes_changed_each_is_there(data: st.DataObject, headers: list[tuple[bytes, bytes]]) -> None:
    records = bytearray(wire.record(b"value", headers) + wire.record(b"other", headers, offset_delta=1))
    for _ in range(data.draw(st.integers(1, 3))):
        records[data.draw(st.integers(0, len(records) - 1))] = data.draw(st.integers(0, 255))
    assert [one.offset for one in Batch(memoryview(wire.batch(bytes(records), 2)), "jobs", 0)] == [0, 1]
