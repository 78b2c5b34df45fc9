"""Where changes to a store that is a folder are prepared, and how they become durable."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".loadonce-"
LEFT_BEHIND_S = 24 * 3600.0
"""A workplace that nothing was put into for so long belongs to a process that was killed."""


@contextmanager
def workplace(store: Path) -> Iterator[Path]:
    """A folder on the store's file system that no look at the store sees; gone afterwards."""
    _sweep(store)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=store))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sync(folder: Path) -> None:
    """Make sure that what the rename will show is on the disk."""
    for path in (*folder.rglob("*"), folder):
        sync_one(path)


def sync_one(path: Path) -> None:
    """The same for one file, or for the names in one folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(store: Path) -> None:
    """Remove what was left behind; what cannot be removed is no reason not to go on."""
    with suppress(OSError):
        for path in store.glob(f"{PREFIX}*"):
            if time.time() - path.lstat().st_mtime > LEFT_BEHIND_S:
                shutil.rmtree(path, ignore_errors=True)
