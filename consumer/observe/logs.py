"""Logs: structlog, as JSON lines or for a terminal, on standard error."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

# At DEBUG kafka-python logs keys, values and headers of the records it sends: payloads never reach a log. Its warnings
# are part of every healthy start. Uvicorn warns of each request that is none, and anybody can send those.
_CAPPED = {"kafka": logging.ERROR, "uvicorn": logging.ERROR, "asyncio": logging.WARNING, "h5py": logging.WARNING}
AGAIN_S = 10.0


def configure(log_format: Literal["auto", "console", "json"], log_level: str) -> None:
    """Send everything that is logged, by whichever library, to standard error in one format."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _one_line,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log_level.upper())
    for name, level in _CAPPED.items():
        logging.getLogger(name).setLevel(max(level, root.level))
    handler.addFilter(NotAgain(time.monotonic))


class NotAgain(logging.Filter):
    """Passes what a line of the Kafka client says once in AGAIN_S, with how often it was said meanwhile: while brokers
    are away it says the same 40 times a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int], tuple[float, int]] = {}  # by line of code: when last, how often since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written."""
        if not record.name.startswith("kafka"):
            return True
        now, line = self._clock(), (record.pathname, record.lineno)
        last, since = self._said.get(line, (-AGAIN_S, 0))
        if now - last < AGAIN_S:
            self._said[line] = last, since + 1
            return False
        self._said[line] = now, 0
        if since:
            record.msg, record.args = f"{record.getMessage()} (and {since} more of its kind)", ()
        return True


def hush_kafka() -> None:
    """On the way out the client tells of connections that it closes itself, as errors."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def logger() -> Any:
    """The logger of loadonce."""
    return structlog.stdlib.get_logger("loadonce")


def _one_line(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Control characters, newlines among them, never reach a log line raw: names in a store may hold them."""
    return {
        key: "".join(char if char.isprintable() else "?" for char in value) if isinstance(value, str) else value
        for key, value in event.items()
    }
