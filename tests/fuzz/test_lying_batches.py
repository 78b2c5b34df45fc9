"""Batches that the broker takes and kafka-python chokes on or believes: each of their records ends as one dead letter
or prediction by its own position, nobody else's is lost, and memory stays bounded."""

import gzip
from functools import partial
from pathlib import Path

import lz4.frame
import msgpack
import pytest
import zstandard

from consumer.local import LocalKafka
from schemas import DeadLetter, Prediction, Reason
from schemas.messages import Position
from tests.conftest import Topics
from tests.fuzz.test_through_the_broker import WINDOW_S, a_consumer, outcomes
from tests.fuzz.wire import batch, produce, record
from tests.replica import until

GZIP, LZ4, ZSTD = 1, 3, 4
BODY = msgpack.packb({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": b"\0\0\0\0"}]})
HEADERS = ((b"model-key", b"double"),)
GOOD = record(BODY, HEADERS)
HUGE = 300_000_000
MANY = 1_200
MANY_IN_ONE = "a wrong checksum in LZ4, over many records"


def _bad_checksum(data: bytes) -> bytes:
    """The broker does not look at the checksum of what is in an LZ4 frame."""
    frame = bytearray(lz4.frame.compress(data, content_checksum=True, block_linked=False))
    frame[-1] ^= 0xFF
    return bytes(frame)


def _many() -> bytes:
    return b"".join(record(BODY, HEADERS, offset_delta=delta) for delta in range(MANY))


def _batches() -> dict[str, tuple[bytes, Reason | None]]:
    """What the records of each become; None: a prediction."""
    bomb = record(bytes(HUGE), HEADERS)
    return {
        "an attribute": (batch(record(BODY, HEADERS, attributes=0x80), 1), None),
        "an offset far ahead": (batch(record(BODY, HEADERS, offset_delta=100_000), 1), Reason.BAD_HEADER),
        "an offset before": (batch(record(BODY, HEADERS, offset_delta=-2), 1), Reason.BAD_HEADER),
        "something behind a gzip stream": (batch(gzip.compress(GOOD) + b"more", 1, GZIP), Reason.BAD_HEADER),
        "a wrong checksum in LZ4": (batch(_bad_checksum(GOOD), 1, LZ4), Reason.BAD_HEADER),
        MANY_IN_ONE: (batch(_bad_checksum(_many()), MANY, LZ4), Reason.BAD_HEADER),
        "a bomb in gzip": (batch(gzip.compress(bomb), 1, GZIP), Reason.BAD_HEADER),
        "a bomb in zstd": (batch(zstandard.compress(bomb), 1, ZSTD), Reason.BAD_HEADER),
        "two hundred thousand headers": (batch(record(BODY, [*HEADERS, *[(b"", b"")] * 200_000]), 1), Reason.TOO_LARGE),
        "two frames of zstd": (batch(zstandard.compress(GOOD[:9]) + zstandard.compress(GOOD[9:]), 1, ZSTD), None),
    }


@pytest.mark.timeout(600)
def test_a_batch_that_lies_costs_its_own_records_only(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    batches = _batches()
    wanted: list[Reason | None] = []
    with a_consumer(kafka, topics, store, tmp_path / "log"), outcomes(kafka, topics) as reader:
        for name, (lying, reason) in batches.items():
            until(partial(_taken, kafka, topics, lying), 30, name)
            assert produce(kafka.bootstrap_servers, topics.jobs, 0, batch(GOOD, 1)) == 0  # somebody else's
            wanted += [reason] * (MANY if name == MANY_IN_ONE else 1) + [None]
        found: dict[Position, Prediction | DeadLetter] = {}

        def answered() -> bool:
            for outcome in reader.poll(0.2):
                assert found.setdefault(outcome.position, outcome) is outcome, "two outcomes"
            return len(found) >= len(wanted)

        until(answered, WINDOW_S, "an outcome for every record")
    became = [_reason(found[Position(topics.jobs, 0, offset)]) for offset in range(len(wanted))]
    assert became == wanted


@pytest.mark.timeout(600)
def test_jobs_that_take_many_times_their_bytes_once_decoded(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    """An empty map is a byte there, and 64 here."""
    swollen = msgpack.packb(msgpack.unpackb(BODY) | {"parameters": {"maps": [{}] * 15_000}})
    jobs = 600
    records = b"".join(record(swollen, HEADERS, offset_delta=delta) for delta in range(jobs))
    until(partial(_taken, kafka, topics, batch(gzip.compress(records), jobs, GZIP)), 30, "the batch")
    with a_consumer(kafka, topics, store, tmp_path / "log"), outcomes(kafka, topics) as reader:
        found: set[Position] = set()

        def answered() -> bool:
            for outcome in reader.poll(0.2):
                assert isinstance(outcome, Prediction), outcome
                found.add(outcome.position)
            return len(found) == jobs

        until(answered, WINDOW_S, "a prediction of every job")


def _taken(kafka: LocalKafka, topics: Topics, records: bytes) -> bool:
    """A leader that is new may refuse at first."""
    return produce(kafka.bootstrap_servers, topics.jobs, 0, records) == 0


def _reason(outcome: Prediction | DeadLetter) -> Reason | None:
    return outcome.reason if isinstance(outcome, DeadLetter) else None
