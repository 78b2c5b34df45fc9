"""`loadonce run` composed with parts that stop at one point of a job's way, say so, and wait there for their fate.

    LOADONCE_...=... python -m tests.faults.victim POINT FOLDER

Once jobs have been answered, the first time that POINT is reached FOLDER/reached is written: the jobs that are read and
not committed. The process goes on once FOLDER/go is there, unless it is killed before.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from consumer.app import Parts, run
from consumer.delivery.acknowledged import AcknowledgedSink
from consumer.delivery.offsets import Offsets
from consumer.delivery.sink import Answer
from consumer.delivery.source import Source
from consumer.delivery.topics import Topic
from consumer.delivery.transactions import TransactionalSink
from consumer.exits import FatalError
from consumer.inference import Inference, Predicted
from consumer.models.runtime import Loaded
from consumer.models.serving import Serving
from consumer.pipeline.job import Job
from consumer.pipeline.parking import Parking
from consumer.settings import load
from consumer.stop import Stop
from schemas.reasons import Failure

POINTS = ("poll", "decode", "park", "predict", "send", "ack", "dead-letter ack", "offsets sent", "commit")
ANSWERED_BEFORE = 100
"""Jobs, so that there is something committed, and something that could come twice."""


class Point:
    """Where the process is to wait."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._reached = False
        self.offsets: CountingOffsets | None = None

    def at(self, name: str) -> None:
        """Wait here if this is the point, and the first time."""
        offsets = self.offsets
        if self._reached or name != self._name or offsets is None or offsets.answered < ANSWERED_BEFORE:
            return
        self._reached = True
        (self._folder / "writing").write_text(json.dumps({"uncommitted": offsets.uncommitted}))
        (self._folder / "writing").rename(self._folder / "reached")
        while not (self._folder / "go").exists():
            time.sleep(0.005)  # the process is meant to stand still


class CountingOffsets(Offsets):
    """Knows how many jobs were answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0

    def done(self, partition: int, epoch: int, offset: int, size: int) -> None:
        super().done(partition, epoch, offset, size)
        self.answered += 1

    @property
    def uncommitted(self) -> int:
        """Jobs that were read, and are not known to be committed."""
        return sum(
            (owned._read_to or 0) + 1 - (owned.committed or 0)
            for owned in map(self.of, self.partitions)
            if owned is not None
        )


POINT = Point(sys.argv[1] if __name__ == "__main__" else "", Path(sys.argv[-1]))


def offsets() -> Offsets:
    """Offsets that the point can look at."""
    POINT.offsets = CountingOffsets()
    return POINT.offsets


class StoppingSource(Source):
    def poll(self, timeout_s: float, at_most: int | None = None) -> list[list[Any]]:
        polled = super().poll(timeout_s, at_most)
        if polled:
            POINT.at("poll")
        return polled

    def commit(self, timeout_s: float) -> bool:
        moved = bool(self._offsets.to_commit())
        done = super().commit(timeout_s)
        if moved:
            POINT.at("commit")
        return done


class StoppingServing(Serving):
    def resolve(self, key: str, version: int | None, alias: str | None) -> Loaded | Failure | None:
        POINT.at("decode")
        return super().resolve(key, version, alias)


class StoppingParking(Parking):
    def park(self, model_key: str, job: Job) -> None:
        super().park(model_key, job)
        POINT.at("park")


class StoppingInference(Inference):
    def collect(self, timeout_s: float) -> list[Predicted]:
        collected = super().collect(timeout_s)
        if collected:
            POINT.at("predict")
        return collected


def sent(send: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def stopping(topic: Topic, answers: Sequence[Answer]) -> list[Any]:
        refused = send(topic, answers)
        POINT.at("send")
        return refused

    return stopping


class StoppingAcknowledged(AcknowledgedSink):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.send = sent(super().send)  # type: ignore[method-assign]

    def settle(self, *, flush: bool) -> None:
        if self._sent and self._sent[0].sent.done and self._sent[0].sent.error is None:
            dead = self._sent[0].sent.future.topic_partition.topic == self.topics.dead_letters.name
            POINT.at("dead-letter ack" if dead else "ack")
        super().settle(flush=flush)


class StoppingTransactions(TransactionalSink):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.send = sent(super().send)  # type: ignore[method-assign]

    def rebuild(self) -> None:
        super().rebuild()
        producer = self._producer
        assert producer is not None
        commit = producer.commit_transaction

        def stopping() -> None:
            POINT.at("offsets sent")
            commit()

        producer.commit_transaction = stopping

    def _positions(self, ready: list[Any]) -> Mapping[Any, Any]:  # type: ignore[override]
        POINT.at("ack")
        if any(answer.record.topic == self.topics.dead_letters.name for answer in ready):
            POINT.at("dead-letter ack")
        return super()._positions(ready)

    def _settled(self, ready: list[Any]) -> None:
        POINT.at("commit")
        super()._settled(ready)


PARTS = Parts(
    offsets=offsets,
    parking=StoppingParking,
    inference=StoppingInference,
    serving=StoppingServing,
    source=StoppingSource,
    acknowledged=StoppingAcknowledged,
    transactions=StoppingTransactions,
)


def main() -> int:
    """Run."""
    try:
        stop = Stop()
        return int(run(load(None), stop, PARTS))
    except FatalError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
