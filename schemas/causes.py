"""Why a connection to the brokers failed, which kafka-python tells its log and nobody else."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

CAUSE_CHARS = 160


class Cause(logging.Handler):
    """The last reason for which a connection failed: nothing listening, a wrong password and a wrong certificate all
    raise the same error, and only the log tells them apart."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a line about a failed connection says."""
        before, _, cause = record.getMessage().partition("Connection failed: ")
        if cause and not before:
            self.text = one_line(cause)

    def of(self, error: BaseException) -> str:
        """The cause of what was raised: what the log said, or else the error itself, in one short line."""
        return self.text or one_line(error) or type(error).__name__


@contextmanager
def listening() -> Iterator[Cause]:
    """Listen to the client's log while connections are made or used; nobody else hears it meanwhile.

    The client logs every try of a connection that fails; what is raised in the end says it once.
    """
    cause = Cause()
    logger = logging.getLogger("kafka")
    heard = logger.propagate
    logger.addHandler(cause)
    logger.propagate = False
    try:
        yield cause
    finally:
        logger.propagate = heard
        logger.removeHandler(cause)


def one_line(text: object) -> str:
    """At most CAUSE_CHARS printable characters."""
    line = "".join(character if character.isprintable() else " " for character in str(text))
    return line if len(line) <= CAUSE_CHARS else line[: CAUSE_CHARS - 3] + "..."
