"""Micro-batches: per model and version, in order; models take turns."""

from collections import OrderedDict, deque
from dataclasses import dataclass

from consumer.models.runtime import Loaded
from consumer.pipeline.job import Bound, Job


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that go through one model in one call. It pins its model for its life."""

    model: Loaded
    jobs: tuple[Job, ...]
    bounds: tuple[Bound, ...]


class Batcher:
    """Jobs waiting for the inference thread.

    There is one queue for each model and version, also where the version's files were replaced and it was loaded
    again. A batch is the longest run of jobs from its head that share a layout and a loaded model and fit into
    `max_rows`: never reordered, so that predictions come out in the order of their jobs. A single job larger than
    `max_rows` goes alone. With `max_delay_s` of 0 a batch is ready as soon as there is a job; otherwise once it is full
    or its first job has waited that long.
    """

    def __init__(self, *, max_rows: int, max_delay_s: float) -> None:
        self._max_rows = max_rows
        self._max_delay_s = max_delay_s
        self._queues: OrderedDict[tuple[str, int], _Queue] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue.jobs) for queue in self._queues.values())

    @property
    def rows(self) -> int:
        """Rows of the jobs that wait."""
        return sum(queue.rows for queue in self._queues.values())

    def add(self, job: Job, model: Loaded, bound: Bound, now: float) -> None:
        """Queue a job for `model`. `now` is a monotonic time in seconds, as everywhere here."""
        name = (model.key, model.version)
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(deque())
        queue.jobs.append((job, bound, model, now))
        queue.rows += bound.rows

    def next(self, now: float, *, flush: bool = False) -> Batch | None:
        """The next batch that is ready, or None. `flush` does not wait for company."""
        for name, queue in self._queues.items():
            if flush or self._ready(queue, now):
                batch = self._take(queue)
                # The model goes to the end of the line: the others have their turn first.
                del self._queues[name]
                if queue.jobs:
                    self._queues[name] = queue
                return batch
        return None

    def clear(self) -> list[Batch]:
        """Give everything back, as batches, in order."""
        taken = []
        while batch := self.next(0.0, flush=True):
            taken.append(batch)
        return taken

    def _ready(self, queue: "_Queue", now: float) -> bool:
        return queue.rows >= self._max_rows or now - queue.jobs[0][3] >= self._max_delay_s

    def _take(self, queue: "_Queue") -> Batch:
        _, first, model, _ = queue.jobs[0]
        # A model of a fixed number of rows takes one job a call.
        room = self._max_rows if model.signature.rows is None else 0
        jobs: list[Job] = []
        bounds: list[Bound] = []
        while queue.jobs:
            job, bound, its_model, _ = queue.jobs[0]
            if jobs and (bound.rows > room or bound.layout != first.layout or its_model is not model):
                break
            queue.jobs.popleft()
            queue.rows -= bound.rows
            room -= bound.rows
            jobs.append(job)
            bounds.append(bound)
        return Batch(model, tuple(jobs), tuple(bounds))


@dataclass(slots=True)
class _Queue:
    jobs: deque[tuple[Job, Bound, Loaded, float]]
    rows: int = 0
