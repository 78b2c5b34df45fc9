"""Job -> the queue of the model that answers it, the parking of those that wait for one, or its failure."""

from collections.abc import Callable

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

    def route(self, job: Job) -> None:
        """A job that could be decoded, now or after it was parked."""
        routing = job.routing
        assert routing.model_key is not None  # noqa: S101 - decode gives the default or fails the job
        model = self._resolve(routing.model_key, routing.version, routing.alias)
        if model is None or (isinstance(model, Loaded) and self._parking.must_precede(routing.model_key)):
            self._parking.park(routing.model_key, job)
        elif isinstance(model, Failure):
            self._bury(job, model)
        else:
            self._queue(job, model)

    def _queue(self, job: Job, model: Loaded) -> None:
        request = job.request
        bound = request if isinstance(request, Failure) else bind(request, model.signature)
        if isinstance(bound, Failure):
            self._bury(job, bound)
        else:
            model.retain()
            self._batcher.add(job, model, bound, self._clock())
