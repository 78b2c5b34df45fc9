"""Jobs that wait for a model: for its load, or for a look at the store."""

from collections import deque
from collections.abc import Iterable, Iterator

from consumer.pipeline.job import Job


class Parking:
    """Jobs by the model they wait for, in the order they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Job]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def partitions(self) -> set[int]:
        """The partitions that have jobs here."""
        return {job.record.partition for jobs in self._waiting.values() for job in jobs}

    def park(self, model_key: str, job: Job) -> None:
        """Let a job wait for a model."""
        self._waiting.setdefault(model_key, deque()).append(job)
        self._count += 1

    def leave(self, model_keys: Iterable[str]) -> Iterator[Job]:
        """The jobs that wait for these models. One that has to go on waiting is parked again by who takes it."""
        for key in model_keys:
            jobs = self._waiting.pop(key, deque())
            self._count -= len(jobs)
            yield from jobs

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()
        self._count = 0
