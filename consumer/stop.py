"""Signals. SIGTERM and SIGINT: the first asks the loop to drain, the second ends the process at once. SIGHUP: look at
the model store now."""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedWhileStartingError(BaseException):
    """A signal came before there was a loop to drain."""


class Refresh:
    """The wish to have the model store looked at now. Asked for on any thread and in signal handlers, taken by one.

    No lock and no `threading.Event`: a signal handler that waited for a lock that its own thread holds would never end.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """The next `taken` is true."""
        self._asked = True

    def taken(self) -> bool:
        """Whether anybody has asked since this was last true; then a look that begins from here on serves them all."""
        if not self._asked:
            return False
        self._asked = False
        return True


class Stop:
    """Takes over the signals for the rest of the process; to be made on the main thread, as early as can be."""

    def __init__(self) -> None:
        self.refresh = Refresh()
        self._asked = False
        self._starting = True
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self.refresh.ask())

    def asked(self) -> bool:
        """Whether SIGTERM or SIGINT has come."""
        return self._asked

    def started(self) -> None:
        """From now on a signal is noticed by whoever calls `asked`; until now it raised StoppedWhileStartingError."""
        self._starting = False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if self._starting:
            raise StoppedWhileStartingError
