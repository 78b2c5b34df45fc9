"""Progress for a person, on standard error: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

QUIET_S = 2.0
"""Nothing is shown of what takes less than this; plain lines come this far apart."""


class Progress:
    """What is going on, said in lines and counts."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._clock = clock
        self._started = clock()

    def tell(self, line: str) -> None:
        """Print what happens now, with the seconds since the start."""
        self.say(f"{self._clock() - self._started:5.1f} s  {line}")

    def say(self, line: str) -> None:
        """Print a line as it is."""
        self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def busy(self, line: str) -> Iterator[None]:
        """Print what happens now; a terminal shows that it still does."""
        self.tell(line)
        if self._console.is_terminal:
            with self._console.status(line):
                yield
        else:
            yield

    @contextmanager
    def count(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Give a function to call with the number done so far; it shows `what` and the number after two seconds."""
        started = said = self._clock()
        bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        task = bars.add_task(what, total=total)

        def done(number: int) -> None:
            nonlocal said
            now = self._clock()
            bars.update(task, completed=number)
            if now - started < QUIET_S:
                return
            if self._console.is_terminal:
                bars.start()
            elif now - said >= QUIET_S:
                said = now
                self.tell(f"{what}: {number}" + (f" of {total}" if total is not None else ""))

        try:
            yield done
        finally:
            if self._console.is_terminal:
                bars.stop()
