"""Mutated records through a real broker and a real consumer process (2,000 in `make test`, 50,000 in `make fuzz`), and
batches that no client library would write.

Each record has exactly one prediction or dead letter by its position; the process lives on in bounded memory, and
neither raw control characters nor anything that a publisher wrote reach its log.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaProducer

from consumer.local import LocalKafka
from schemas import DeadLetter, OutcomeReader, Prediction
from schemas.headers import DLQ_PREFIX, RawName
from schemas.messages import Position
from tests import stores
from tests.conftest import PARTITIONS, Topics
from tests.fuzz import options
from tests.fuzz.mutator import MARK, Raw, record
from tests.fuzz.options import tell
from tests.ledger import lag
from tests.replica import Replica, replica, until
from tests.replica import options as of_a_replica

WINDOW = 1_000
WINDOW_S = 120.0
GROWTH_KIB = 512 * 1024
"""What the process may add to what it takes when it is ready: bodies of up to 128 KiB, some thousands of them."""
LIMITS = {
    "MAX_JOB_BYTES": 128 * 1024,
    "MAX_JOB_HEADER_BYTES": 8 * 1024,
    "MAX_JOB_TENSORS": 8,
    "MAX_JOB_ROWS": 1_000,
    "MAX_JOB_RANK": 4,
    "MAX_IN_FLIGHT_BYTES": 32 * 1024 * 1024,
    "PRELOAD": f"{stores.DOUBLE},{stores.FUSSY},{stores.UPPER},{stores.SUM}",
}


@contextmanager
def a_consumer(kafka: LocalKafka, topics: Topics, store: Path, log: Path) -> Iterator[Replica]:
    """Ready, and stopped as it should be in the end, with nothing left and nothing said that must not be."""
    with replica(log, **of_a_replica(kafka, topics, store, **LIMITS)) as process:
        until(lambda: process.get("/readyz")[0] == 200, WINDOW_S, "a ready replica")
        before = _largest_kib(process)
        yield process
        grown = _largest_kib(process) - before
        until(lambda: lag(kafka, topics) == 0, WINDOW_S, "no lag")
        assert process.stop() == 0
    tell(f"the process grew by {grown / 1024:.0f} MiB at the most")
    assert grown <= GROWTH_KIB
    for line in log.read_bytes().decode().split("\n"):
        assert line.isprintable(), line
        assert MARK not in line, line
        assert not line or json.loads(line)


@contextmanager
def outcomes(kafka: LocalKafka, topics: Topics) -> Iterator[OutcomeReader]:
    with OutcomeReader(
        kafka.bootstrap_servers,
        predictions_topic=topics.predictions,
        dead_letters_topic=topics.dead_letters,
        start="earliest",
    ) as reader:
        yield reader
        assert reader.skipped == 0, "what is no outcome by the contract"


@pytest.mark.timeout(4 * 3_600)
def test_every_record_has_one_outcome(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    seed, first, count = options.SEED, options.FIRST, options.BROKER_RECORDS
    began, size, predictions = time.monotonic(), 0, 0
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=20, batch_size=500_000)
    with a_consumer(kafka, topics, store, tmp_path / "log"), outcomes(kafka, topics) as reader:
        offsets = [0] * PARTITIONS
        for start in range(first, first + count, WINDOW):
            if start % 10_000 == 0 and start > first:
                tell(f"{start - first} records of seed {seed} in {time.monotonic() - began:.0f} s")
            sent: dict[Position, Raw] = {}
            for number in range(start, min(start + WINDOW, first + count)):
                raw = record(seed, number)
                partition = number % PARTITIONS
                _send(producer, topics.jobs, partition, raw)
                sent[Position(topics.jobs, partition, offsets[partition])] = raw
                offsets[partition] += 1
                size += len(raw.value or b"")
            producer.flush(60)
            deadline = time.monotonic() + WINDOW_S
            while sent:
                assert time.monotonic() < deadline, f"no outcome of {list(sent)[:5]}, after record {start} of {seed}"
                for outcome in reader.poll(0.2):
                    # Twice, or nobody's: not there to be taken out.
                    _check(outcome, sent.pop(outcome.position))
                    predictions += isinstance(outcome, Prediction)
        assert reader.poll(2) == []
    producer.close(timeout=10)
    tell(
        f"{count} records of seed {seed} ({size / 1e6:.0f} MB) through the broker in {time.monotonic() - began:.0f} s: "
        f"{predictions} predictions, {count - predictions} dead letters"
    )
    if count >= WINDOW:
        assert 0 < predictions < count


def _send(producer: KafkaProducer, topic: str, partition: int, raw: Raw) -> None:
    headers = [(RawName.of(name), value) for name, value in raw.headers]
    value = b"" if raw.key is None and raw.value is None else raw.value  # which the client cannot send
    # Null values of headers are Kafka's, but the client's own check does not let them pass.
    producer.send(
        topic, value, raw.key, [(name, b"" if value is None else value) for name, value in headers], partition
    )


def _check(outcome: Prediction | DeadLetter, raw: Raw) -> None:
    if isinstance(outcome, Prediction):
        assert outcome.key == raw.key
        return
    assert outcome.message.isprintable()
    assert MARK not in outcome.message
    if not outcome.truncated:
        assert (outcome.key, outcome.value or b"") == (raw.key, raw.value or b"")
        assert [(name.encode(), value) for name, value in outcome.headers] == [
            (name, value or b"") for name, value in raw.headers if not name.startswith(DLQ_PREFIX.encode())
        ]


def _largest_kib(process: Replica) -> int:
    """The most that was resident so far."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
