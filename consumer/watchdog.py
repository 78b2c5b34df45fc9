"""Ends the process where a call does not return: a Kafka call without a time limit, a model that is busy for ever."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 0.25


class Watchdog:
    """Looks on its own thread whether what is limited takes longer. `bark` gets one line, and is to end the process."""

    def __init__(self, clock: Callable[[], float], bark: Callable[[str], None]) -> None:
        self._clock = clock
        self._bark = bark
        self._limited: tuple[float, str] | None = None
        self._watched: list[Callable[[], str | None]] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def limit(self, seconds: float, what: str) -> Iterator[None]:
        """What is done inside may take so long. For one thread, and not within itself."""
        self._limited = self._clock() + seconds, f"{what} took more than {seconds:g} s"
        try:
            yield
        finally:
            self._limited = None

    def watch(self, problem: Callable[[], str | None]) -> None:
        """Ask this, too, on the watchdog's thread; a text ends the process."""
        self._watched.append(problem)

    def close(self) -> None:
        """Bark no more."""
        self._closed.set()
        self._thread.join(4 * LOOK_S)

    def _run(self) -> None:
        while not self._closed.wait(LOOK_S):
            if (why := self._problem()) is not None:
                self._bark(why)
                return

    def _problem(self) -> str | None:
        limited = self._limited
        if limited is not None and self._clock() > limited[0]:
            return limited[1]
        return next((why for watched in self._watched if (why := watched()) is not None), None)
