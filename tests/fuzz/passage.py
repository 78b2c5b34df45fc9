"""The way of a job through the consumer, between the two ends that are a broker: what kafka-python makes of the bytes,
decode, route, bind, batch, predict, encode or dead letter. All parts are the real ones, composed as the loop does.
"""

import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from kafka.record.default_records import DefaultRecordBatchBuilder

from consumer.delivery.dead_letters import dead_letter, record_size
from consumer.models.serving import Serving
from consumer.pipeline.batch import Batcher
from consumer.pipeline.decode import Decoder
from consumer.pipeline.encode import encode
from consumer.pipeline.job import Job
from consumer.pipeline.parking import Parking
from consumer.pipeline.predict import predict
from consumer.pipeline.route import Router
from schemas.batches import Batch
from schemas.headers import DLQ_PREFIX, DLQ_REPLAYS, RawName
from schemas.limits import Limits
from schemas.messages import RawHeaders
from schemas.reasons import Failure
from schemas.records import MAX_MESSAGE_BYTES, read_dead_letter, read_prediction
from tests.fuzz.mutator import MARK, Raw

LIMITS: Final = Limits(body_bytes=128 * 1024, header_bytes=8 * 1024, tensors=8, rows=1_000, rank=4, elements=100_000)
"""Small, so that mutated jobs are on both sides of each."""
RECORD_LIMIT: Final = 64 * 1024
NOW_MS: Final = 1_700_000_000_000
MAX_AGE_MS: Final = 1_000_000
LOOK_S: Final = 60.0

KIB: Final = 1024
READING: Final = (96, 9 * KIB * KIB)
"""Memory to read a record, beside the record: so many times its size, and so many bytes. An empty list of one byte
takes 64 in memory and a place of 8 in the list that holds it; msgpack's C reader takes 8 MB at most for nested lists
that say to be long (`msgpack_body`)."""
ANSWERING: Final = (96, 16 * KIB * KIB)
"""Memory to answer a chunk: no rows are run as one row, of at most LIMITS.elements."""


@dataclass(frozen=True, slots=True)
class Read:
    """A record as kafka-python gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: RawHeaders
    timestamp: int


def read_by_the_client(raws: Iterable[Raw], first: int) -> list[Read]:
    """Through kafka-python's writer and parser: offsets count from `first`."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
    for index, raw in enumerate(raws):
        headers = [(RawName.of(name), value) for name, value in raw.headers]
        assert builder.append(index, NOW_MS - raw.age_ms, raw.key, raw.value, headers) is not None
    batch = Batch(memoryview(builder.build()), "jobs", 0)
    return [
        Read("jobs", 0, first + record.offset, record.key, record.value, record.headers, record.timestamp)
        for record in batch
    ]


_Letter = tuple[Job, Failure, bytes | None, bytes | None, list[tuple[str, bytes]]]


class Passage:
    """Counts what became of the records that are pushed through; any breach of what is promised is an AssertionError.

    `at` is the offset of the record at hand, None where a batch of several is.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._parking = Parking()
        self._decoder = Decoder(LIMITS, None, MAX_AGE_MS)
        self._batcher = Batcher(max_rows=256, max_delay_s=0)
        self._router = Router(serving.resolve, self._parking, self._batcher, bury=self._bury, clock=lambda: 0.0)
        self._answered: set[int] = set()
        self._letters: list[_Letter] = []
        self.at: int | None = None
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.reading_peak = 0
        self.answering_peak = 0
        self.bytes = 0

    def push(self, records: list[Read], *, traced: bool) -> None:
        """All the way, and each to exactly one outcome; where it is `traced`, within the bounds of memory."""
        if not traced:
            self._push(records)
            return
        tracemalloc.start()
        try:
            self._push(records)
        finally:
            tracemalloc.stop()

    def _push(self, records: list[Read]) -> None:
        self._answered.clear()
        size = 0
        for record in records:
            self.at = record.offset
            size += self._read(record)
        self.at = None
        before = _traced()
        deadline = time.monotonic() + LOOK_S
        while len(self._parking) or len(self._batcher):
            assert time.monotonic() < deadline, "jobs still wait for a model"
            self._router.route(list(self._parking.leave(self._serving.poll())))
            if not self._answer():
                time.sleep(0.0005)
            self._check_letters()
        peak = tracemalloc.get_traced_memory()[1] - before
        self.answering_peak = max(self.answering_peak, peak)
        assert peak <= ANSWERING[0] * size + ANSWERING[1], f"answering {size} bytes took {peak} bytes"
        assert self._answered == {record.offset for record in records}, "a record without an outcome"
        self.bytes += size

    def _read(self, record: Read) -> int:
        size = _size(record)
        before = _traced()
        began = time.perf_counter()
        job, failure = self._decoder.read(record, 1, NOW_MS)
        if failure is None:
            self._router.route([job])
        else:
            self._bury(job, failure)
        self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
        peak = tracemalloc.get_traced_memory()[1] - before
        self.reading_peak = max(self.reading_peak, peak)
        assert peak <= READING[0] * size + READING[1], f"reading {size} bytes took {peak} bytes"
        self._check_letters()
        return size

    def _answer(self) -> bool:
        batch = self._batcher.next(0, flush=True)
        if batch is None:
            return False
        for answers in predict(batch):
            for job, out in encode(batch.model, answers, RECORD_LIMIT):
                batch.model.release()
                if isinstance(out, Failure):
                    self._bury(job, out)
                    continue
                assert out.key == job.record.key
                prediction = read_prediction(out.key, out.value, out.headers)
                assert prediction.position.offset == job.record.offset
                self._count(job, "prediction")
        return True

    def _bury(self, job: Job, failure: Failure) -> None:
        record = job.record
        key, value, headers = dead_letter(
            key=record.key,
            value=record.value,
            headers=record.headers,
            position=f"{record.topic}/{record.partition}/{record.offset}",
            failure=failure,
            failed_at_ms=NOW_MS,
            consumer="fuzz",
            limit=RECORD_LIMIT,
        )
        self._letters.append((job, failure, key, value, headers))
        self._count(job, failure.reason)

    def _count(self, job: Job, outcome: str) -> None:
        offset = job.record.offset
        assert offset not in self._answered, f"two outcomes of record {offset}"
        self._answered.add(offset)
        self.outcomes[outcome] += 1

    def _check_letters(self) -> None:
        for letter in self._letters:
            _check_letter(*letter)
        self._letters.clear()


def _check_letter(
    job: Job, failure: Failure, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    record = job.record
    assert record_size(key, value, headers) <= RECORD_LIMIT
    message = dict(headers)["dlq-message"]
    assert 0 < len(message) <= MAX_MESSAGE_BYTES
    assert message.decode().isprintable()
    assert MARK not in message.decode(), f"a message repeats what the publisher wrote: {message!r}"
    letter = read_dead_letter(key, value, headers)
    assert (letter.reason, letter.stage, letter.position.offset) == (failure.reason, failure.stage, record.offset)
    assert letter.failed_at == NOW_MS
    own = [(name.encode(), content) for name, content in headers if not name.startswith(DLQ_PREFIX)]
    if letter.truncated:
        assert value == b""
        assert _size(record) + 400 > RECORD_LIMIT - 10 * len(record.headers)
    else:
        assert (key, value) == (record.key, record.value)
        assert own == [
            (name.encode(), content or b"") for name, content in record.headers if not name.startswith(DLQ_PREFIX)
        ]
        assert [content for name, content in headers if name == DLQ_REPLAYS] == [
            content or b"" for name, content in record.headers if name == DLQ_REPLAYS
        ]


def _size(record: Any) -> int:
    return (
        len(record.key or b"")
        + len(record.value or b"")
        + sum(len(name.encode()) + len(value or b"") for name, value in record.headers)
    )


def _traced() -> int:
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    return tracemalloc.get_traced_memory()[0]
