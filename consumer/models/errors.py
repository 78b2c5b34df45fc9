"""Why a model cannot be loaded. Messages are one line without paths: they end up in dead letters."""

import re
from pathlib import Path

from schemas.reasons import Failure, Reason, Stage

MESSAGE_CHARS = 300
"""A dead letter's message holds 512 bytes, and says more than this."""

_PATH = re.compile(r"""[^\s'"()=,]*[/\\][^\s'"(),]*""")


class LoadError(Exception):
    """A model that cannot be loaded; `reason` is what its jobs' dead letters say."""

    reason = Reason.MODEL_CORRUPT


class PermanentLoadError(LoadError):
    """Trying again cannot help before the files change: a bad digest, an unreadable or refused file."""


class TooLargeError(PermanentLoadError):
    """More than the cache may hold: nothing is wrong with the file."""

    reason = Reason.MODEL_UNAVAILABLE


class TookTooLongError(PermanentLoadError):
    """Most likely it always will, and each try keeps a helper process from others; a busy machine may be the cause."""

    reason = Reason.MODEL_UNAVAILABLE


class PassingLoadError(LoadError):
    """Trying again may help: I/O errors, a store that does not answer, too little memory."""

    reason = Reason.MODEL_UNAVAILABLE


class StaleError(Exception):
    """The files are not, or no longer, those that the look at the store has seen: look again."""


class PreloadError(Exception):
    """A model that must be there before the process serves anything is not."""

    def __init__(self, name: str, failure: Failure) -> None:
        super().__init__(f"{name}: {failure.message}")
        self.name = name
        self.failure = failure


def failure_of(error: LoadError, attempts: int) -> Failure:
    """The failure of every job that needs the model."""
    return Failure(error.reason, Stage.LOAD, str(error), attempts)


def describe(error: BaseException, *paths: Path) -> str:
    """An exception as one line without paths: its kind and the first line of its text. `paths` may hold spaces."""
    text = one_line(str(error), *paths)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: str, *paths: Path) -> str:
    """The first line of a text, without paths, cut to `MESSAGE_CHARS`. `paths` may hold spaces."""
    lines = text.strip().splitlines()
    line = lines[0] if lines else ""
    for path in paths:
        line = line.replace(str(path), "...")
    line = "".join(char if char.isprintable() else " " for char in _PATH.sub("...", line[: 4 * MESSAGE_CHARS]))
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 3] + "..."
