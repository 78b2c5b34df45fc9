"""One time budget for everything that waits on the way out."""

from collections.abc import Callable


class Deadline:
    """`seconds` from its making, or from the last `restart`."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._at = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until it passes, 0 afterwards."""
        return max(0.0, self._at - self._clock())

    def restart(self) -> None:
        """Begin again now."""
        self._at = self._clock() + self._seconds
