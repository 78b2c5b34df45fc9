"""SIGTERM and SIGINT: the first asks the loop to drain, the second ends the process at once."""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedWhileStartingError(BaseException):
    """A signal came before there was a loop to drain."""


class Stop:
    """Takes over both signals for the rest of the process; to be made on the main thread, as early as can be."""

    def __init__(self) -> None:
        self._asked = False
        self._starting = True
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def asked(self) -> bool:
        """Whether a signal has come."""
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
