"""The small files of a store, read with a limit before anything is made of them."""

import json
import os
import stat
from pathlib import Path
from typing import Any


class DocumentError(Exception):
    """A file that cannot be what its name says. One line without paths."""


def read(path: Path, limit: int) -> bytes:
    """A regular file's bytes, at most `limit`. DocumentError; OSError."""
    # O_NONBLOCK: opening a pipe that nobody writes to must not wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DocumentError(f"{path.name} is not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            text = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(text) > limit:
        raise DocumentError(f"{path.name} has more than {limit} bytes")
    return text


def parse(text: bytes, name: str) -> dict[str, Any]:
    """The JSON object that the text is; `name` is the file's. DocumentError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise DocumentError(f"{name} is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentError(f"{name} is not a map")
    return document
