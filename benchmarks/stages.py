"""Where the time goes between the Kafka client and the model: microseconds of processor time a job, stage by stage.

    python -m benchmarks.stages [--jobs 500] [--rounds 60] [--json]

No broker and no model: fetched bytes go in, the bytes of a batch to be sent come out, and the model's answers are
zeros. Medians of rounds, of this thread's processor time alone.
"""

import gc
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from benchmarks.common import parser, report, table
from consumer.delivery import bulk
from consumer.delivery.offsets import Offsets
from consumer.models.signature import Signature, TensorSpec
from consumer.pipeline.bind import bind
from consumer.pipeline.decode import Decoder
from consumer.pipeline.encode import encode
from consumer.pipeline.job import Bound, Form
from consumer.pipeline.predict import Answers, stacked
from schemas.batches import Fetched
from schemas.limits import Limits

WIDTH, CLASSES = 16, 3
SIGNATURE = Signature(
    (TensorSpec("features", "FP32", (None, WIDTH)),), (TensorSpec("scores", "FP32", (None, CLASSES)),), None
)
LIMIT = 1 << 20
ROOM = 1 << 24


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=500, help="of a batch")
    arguments.add_argument("--rounds", type=int, default=60)
    given = arguments.parse_args()
    stages = Stages(given.jobs)
    gc.freeze()
    gc.disable()  # as good as in a consumer, whose collector sleeps through this
    for _ in range(given.rounds):
        stages.once()
    found = {name: round(statistics.median(times) / given.jobs * 1e6, 2) for name, times in stages.took.items()}
    result = {"jobs": given.jobs, "rounds": given.rounds, "microseconds_per_job": found | {"sum": sum(found.values())}}
    report(result, as_json=given.json, text=lambda: table(["stage", "us a job"], [[*one] for one in found.items()]))


class Stages:
    """One batch, again and again. `took` has the seconds of each stage, by round."""

    def __init__(self, jobs: int) -> None:
        self.took: dict[str, list[float]] = {}
        self._jobs = jobs
        self._fetched = _fetched(jobs)
        self._decoder = Decoder(Limits(), None)
        self._model: Any = SimpleNamespace(key="plus", version=1)
        self._outputs = {"scores": np.zeros((jobs, CLASSES), np.float32)}
        self._offsets = Offsets()
        self._offsets.assign([0])
        self._next = 0

    def once(self) -> None:
        """All stages, one after the other."""
        part = Fetched(0, TopicPartition("jobs", 0), MemoryRecords(self._fetched))
        records = self._timed("fetched bytes to records", lambda: part.take(self._jobs))
        read = self._timed(
            "records to jobs", lambda: [self._decoder.read(record, 1, now_ms=0)[0] for record in records]
        )
        jobs = tuple(read)
        bounds = self._timed("jobs to a model's inputs", lambda: tuple([_bound(job.form) for job in jobs]))
        parts = [job.data[0] for job in jobs]
        self._timed("stacking", lambda: stacked(parts, np.dtype("<f4"), (self._jobs, WIDTH)))
        answers = Answers(jobs, bounds, self._outputs)
        made = self._timed(
            "outputs to predictions", lambda: [answer for _, answer in encode(self._model, answers, LIMIT)]
        )
        self._timed("predictions to a batch", lambda: _written(made))
        self._timed("offsets", lambda: self._account(records))

    def _account(self, records: list[Any]) -> None:
        owned = self._offsets.of(0)
        assert owned is not None
        owned.read(self._next, self._next + self._jobs)
        for record in records:
            owned.taken(self._next + record.offset, 1)
        for record in records:
            self._offsets.done(0, owned.epoch, self._next + record.offset, 1)
        self._next += self._jobs

    def _timed(self, name: str, stage: Callable[[], Any]) -> Any:
        began = time.thread_time()
        result = stage()
        self.took.setdefault(name, []).append(time.thread_time() - began)
        return result


def _bound(form: Any) -> Bound:
    assert isinstance(form, Form)
    bound = bind(form, SIGNATURE)
    assert isinstance(bound, Bound)
    return bound


def _fetched(jobs: int) -> bytes:
    batch = MemoryRecordsBuilder(2, 0, ROOM)
    generator = np.random.default_rng(0)
    for number in range(jobs):
        data = generator.random(WIDTH, np.float32).astype("<f4").tobytes()
        body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, WIDTH], "data": data}]}
        headers = [("model-key", b"plus"), ("correlation-id", b"%08d" % number)]
        batch.append(1, None, msgpack.packb(body), headers)
    batch.close()
    return bytes(batch.buffer())


def _written(answers: list[Any]) -> None:
    batch = MemoryRecordsBuilder(2, 0, ROOM)
    bulk.fill(batch, [bulk.content(one.key, one.value, one.headers) for one in answers], 0, 1)
    batch.close()


if __name__ == "__main__":
    main()
