"""Job -> the queue of the model that answers it, the parking of those that wait for one, or its failure."""

from collections.abc import Callable, Iterable
from typing import Any

from consumer.models.runtime import Loaded
from consumer.pipeline.batch import Batcher
from consumer.pipeline.bind import bind
from consumer.pipeline.job import Job
from consumer.pipeline.parking import Parking
from schemas.reasons import Failure

Resolve = Callable[[str, int | None, str | None], Loaded | Failure | None]
"""The model that answers model key, version and alias; why none will; or None: later."""


class Router:
    """Sends each job where it goes next. `bury` takes those that fail; `clock` gives monotonic seconds."""

    def __init__(
        self,
        resolve: Resolve,
        parking: Parking,
        batcher: Batcher,
        *,
        bury: Callable[[Job, Failure], None],
        clock: Callable[[], float],
    ) -> None:
        self._resolve = resolve
        self._parking = parking
        self._batcher = batcher
        self._bury = bury
        self._clock = clock

    def route(self, jobs: Iterable[Job]) -> None:
        """Jobs that could be decoded, in order, now or after they were parked."""
        answering: dict[tuple[Any, ...], Loaded] = {}
        now = self._clock()
        for job in jobs:
            routing = job.routing
            key = routing.model_key
            assert key is not None  # noqa: S101 - decode gives the default or fails the job
            asked = key, routing.version, routing.alias
            model = answering.get(asked) or self._resolve(*asked)
            if model is None or (isinstance(model, Loaded) and self._parking.must_precede(key)):
                self._parking.park(key, job)
            elif isinstance(model, Failure):
                self._bury(job, model)
            else:
                answering[asked] = model  # models come and go when they are polled, not between these jobs
                self._queue(job, model, now)

    def _queue(self, job: Job, model: Loaded, now: float) -> None:
        form = job.form
        bound = form if isinstance(form, Failure) else bind(form, model.signature)
        if isinstance(bound, Failure):
            self._bury(job, bound)
        else:
            model.retain()
            self._batcher.add(job, model, bound, now)
