"""Versions that could not be loaded: remembered until their files change, with a probe at growing intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from consumer.models.cache import Name
from consumer.models.events import FailedStatus
from consumer.models.store import Fingerprint, Located
from schemas.reasons import Failure

PROBE_MAX_S = 3600.0
"""The longest time between two probes of a version that cannot be loaded."""


@dataclass(slots=True)
class _Remembered:
    failure: Failure
    fingerprint: Fingerprint
    permanent: bool
    retry_at: float
    times: int


class Failures:
    """What is known to fail. A permanent failure holds while it is probed; a passing one only until its time is up."""

    def __init__(self, first_s: float, clock: Callable[[], float]) -> None:
        self._first_s = first_s
        self._clock = clock
        self._failures: dict[Name, _Remembered] = {}

    def of(self, located: Located) -> Failure | None:
        """Why these files are not tried now, if so."""
        remembered = self._failures.get((located.key, located.version))
        if (
            remembered is not None
            and remembered.fingerprint == located.fingerprint
            and (remembered.permanent or self._clock() < remembered.retry_at)
        ):
            return remembered.failure
        return None

    def status(self) -> tuple[FailedStatus, ...]:
        """Everything remembered, by name and version."""
        return tuple(
            FailedStatus(
                *name,
                failure=remembered.failure,
                permanent=remembered.permanent,
                retry_at=None if remembered.retry_at == inf else remembered.retry_at,
            )
            for name, remembered in sorted(self._failures.items())
        )

    def names(self) -> list[Name]:
        """The versions that are remembered."""
        return list(self._failures)

    def add(self, name: Name, failure: Failure, fingerprint: Fingerprint, *, permanent: bool) -> None:
        """Remember, for longer each time that the same files have failed for good."""
        before = self._failures.get(name)
        times = before.times + 1 if before is not None and before.fingerprint == fingerprint else 1
        wait_s = min(self._first_s * 2 ** min(times - 1, 30), PROBE_MAX_S) if permanent else self._first_s
        self._failures[name] = _Remembered(failure, fingerprint, permanent, self._clock() + wait_s, times)

    def forget(self, name: Name) -> None:
        """It has loaded, or is gone."""
        self._failures.pop(name, None)

    def follow(self, name: Name, located: Located | None) -> None:
        """Forget a failure of files that are not there any more."""
        remembered = self._failures.get(name)
        if remembered is not None and (located is None or located.fingerprint != remembered.fingerprint):
            del self._failures[name]

    def untold(self, name: Name) -> None:
        """Its probe has told nothing: another follows."""
        if name in self._failures:
            self._failures[name].retry_at = self._clock() + self._first_s

    def due(self, now: float) -> list[tuple[Name, bool]]:
        """Those whose time is up, and whether they are to be probed; the others are forgotten."""
        due = []
        for name, remembered in list(self._failures.items()):
            if now >= remembered.retry_at:
                due.append((name, remembered.permanent))
                if remembered.permanent:
                    remembered.retry_at = inf  # until the probe has an answer
                else:
                    del self._failures[name]
        return due
