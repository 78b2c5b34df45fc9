"""A circuit breaker: where too many jobs become dead letters, reading stops before a whole topic has.

A bad deploy, of a model or of its publishers, fails job after job, and each looks like that job's own fault. The
share of dead letters among all answers of the last while tells.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from schemas.reasons import Reason

MINIMUM = 50
"""Answers below which a share says nothing."""
TRIAL = 10
"""Jobs that find out whether it is over."""
_BUCKETS = 20


class Circuit(StrEnum):
    """The field's terms: closed lets everything through, open nothing, half-open a few to find out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Opens where the dead letters of `window_s` seconds are more than `limit` of all answers, of at least `minimum`.

    After another `window_s` it is half-open: `trial` jobs are let through. Unless more than `limit` of them fail it
    closes, otherwise it opens again. A `limit` of None never opens. Expired jobs are not counted at all: after an
    outage they may be all there are, and reading on is what ends it.

    It counts what is answered, not what is read: a trial ends when as many answers have come, however long that takes.
    What has no answer after `window_s` may have been taken away with its partition: others are read in its place.
    """

    def __init__(
        self,
        limit: float | None,
        window_s: float,
        clock: Callable[[], float],
        *,
        minimum: int = MINIMUM,
        trial: int = TRIAL,
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._minimum = minimum
        self._trial = trial
        self._circuit = Circuit.CLOSED
        self._since = clock()
        self._buckets: deque[list[int]] = deque()  # number, predictions, dead letters
        self._predictions = 0
        self._dead_letters = 0
        self._taken = 0  # of a trial

    @property
    def circuit(self) -> Circuit:
        """As it is now."""
        self._turn()
        return self._circuit

    @property
    def exceeded(self) -> bool:
        """Whether there are too many, as far as is known: not ready."""
        return self.circuit is not Circuit.CLOSED

    @property
    def allowance(self) -> int | None:
        """How many jobs may be read now; None: any number."""
        circuit = self.circuit
        if circuit is Circuit.CLOSED:
            return None
        return 0 if circuit is Circuit.OPEN else max(0, self._trial - self._taken)

    @property
    def share(self) -> float:
        """The dead letters' share of the answers that count at present."""
        answers = self._predictions + self._dead_letters
        return self._dead_letters / answers if answers else 0.0

    def took(self, jobs: int) -> None:
        """So many jobs were read."""
        self._taken += jobs

    def predicted(self, jobs: int = 1) -> None:
        """So many jobs have a prediction."""
        self._count(jobs, 0)

    def buried(self, reason: Reason) -> None:
        """A job became a dead letter."""
        if reason is Reason.EXPIRED:
            self._taken -= 1  # it finds nothing out: another may be read in its place
        else:
            self._count(0, 1)

    def _count(self, predictions: int, dead_letters: int) -> None:
        # What is answered while it is open was read before, and would only tell the same again.
        if self._limit is None or not predictions + dead_letters or self.circuit is Circuit.OPEN:
            return
        number = int(self._clock() / self._window_s * _BUCKETS)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append([number, 0, 0])
        self._buckets[-1][1] += predictions
        self._buckets[-1][2] += dead_letters
        self._predictions += predictions
        self._dead_letters += dead_letters
        self._decide(self._limit)

    def _decide(self, limit: float) -> None:
        answers = self._predictions + self._dead_letters
        if self._circuit is Circuit.CLOSED:
            if answers >= self._minimum and self.share > limit:
                self._become(Circuit.OPEN)
        elif answers >= self._trial:
            self._become(Circuit.OPEN if self.share > limit else Circuit.CLOSED)

    def _turn(self) -> None:
        """What time alone changes."""
        if self._limit is None:
            return
        now = self._clock()
        if self._circuit is not Circuit.CLOSED:
            if now - self._since >= self._window_s:
                self._try()
            return
        oldest = int(now / self._window_s * _BUCKETS) - _BUCKETS
        while self._buckets and self._buckets[0][0] <= oldest:
            _, predictions, dead_letters = self._buckets.popleft()
            self._predictions -= predictions
            self._dead_letters -= dead_letters

    def _try(self) -> None:
        """Begin the trial, or go on with it where too few jobs came or were answered in time."""
        if self._circuit is Circuit.OPEN:
            self._become(Circuit.HALF_OPEN)
        else:
            self._since = self._clock()
            self._taken = self._predictions + self._dead_letters

    def _become(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self._since = self._clock()
        self._buckets.clear()
        self._predictions = self._dead_letters = self._taken = 0
