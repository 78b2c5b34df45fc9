"""Jobs that wait for a model: for its load, or for a look at the store."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from consumer.pipeline.job import Job


class Parking:
    """Jobs by the model they wait for, in the order they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Job]] = {}
        self._undecided: Counter[str] = Counter()
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
        self._undecided[model_key] += _is_undecided(job)
        self._count += 1

    def must_precede(self, model_key: str) -> bool:
        """Whether jobs wait here that any version of the model may yet answer: those that name none.

        Jobs of that version must not overtake them, since predictions of a version come in the order of their jobs.
        """
        return self._count > 0 and self._undecided[model_key] > 0

    def leave(self, model_keys: Iterable[str]) -> Iterator[Job]:
        """The jobs that wait for these models. One that has to go on waiting is parked again by who takes it."""
        for key in model_keys:
            jobs = self._waiting.pop(key, deque())
            self._count -= len(jobs)
            self._undecided.pop(key, None)
            yield from jobs

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()
        self._undecided.clear()
        self._count = 0


def _is_undecided(job: Job) -> bool:
    return job.routing.version is None and job.routing.alias is None
