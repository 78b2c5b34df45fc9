"""The folder that versions are downloaded to: whole ones by id, and pieces that a later try goes on from.

<folder>/whole/<id>/...     complete, renamed into place
<folder>/pieces/<id>/...    being downloaded, or left by an interrupted download
<folder>/locks/<id>         locked while somebody works on that id; processes may share the folder
"""

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from consumer.models.disk_cache import must_be_ours
from consumer.models.errors import PassingLoadError

GRACE_S = 60.0
"""What was used this recently may be about to be opened, and stays."""
LOCK_S = 600.0
"""How long to wait for another who downloads the same version."""
_TRY_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class _Held:
    path: Path
    nbytes: int
    used: float


class Downloads:
    """At most `max_bytes` on disk, pieces included; the least recently used leaves. For any thread and process."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Makes the folder if need be. UnsafeFolderError: it is in the hands of others. OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        must_be_ours(folder)
        self.max_bytes = max_bytes
        self._whole = folder / "whole"
        self._pieces = folder / "pieces"
        self._locks = folder / "locks"

    @contextlib.contextmanager
    def hold(self, name: str, cancelled: threading.Event) -> Iterator[None]:
        """Nobody else works on this id meanwhile. PassingLoadError: cancelled, or not free in time. OSError."""
        for folder in (self._whole, self._pieces, self._locks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock_file(name) as descriptor:
            deadline = time.monotonic() + LOCK_S
            while not _locked(descriptor):
                if cancelled.wait(_TRY_AGAIN_S):
                    raise PassingLoadError("its download was cancelled")
                if time.monotonic() > deadline:
                    raise PassingLoadError(f"another download of it has not ended within {LOCK_S:g} s")
            yield

    def whole(self, name: str) -> Path | None:
        """The folder of a complete version, which counts as used now."""
        path = self._whole / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def pieces(self, name: str) -> Path:
        """The folder to download to; what an earlier try has left is in it. To be called while held."""
        path = self._pieces / name
        path.mkdir(exist_ok=True)
        os.utime(path)
        return path

    def complete(self, name: str) -> Path:
        """Make the pieces the whole, at once. To be called while held."""
        path = self._whole / name
        os.utime(self._pieces / name)
        (self._pieces / name).rename(path)
        return path

    def drop(self, name: str) -> None:
        """Forget a version, whole or in pieces. To be called while held."""
        shutil.rmtree(self._whole / name, ignore_errors=True)
        shutil.rmtree(self._pieces / name, ignore_errors=True)

    def make_room(self, nbytes: int, name: str) -> None:
        """Remove what was not used for longest until `nbytes` more fit beside the rest; never `name` itself.

        PassingLoadError: what would have to leave is in use.
        """
        held = sorted(self._held(name), key=lambda entry: entry.used)
        left = sum(entry.nbytes for entry in held) + nbytes - self.max_bytes
        now = time.time()
        for entry in held:
            if left <= 0:
                return
            if entry.used < now - GRACE_S and self._remove(entry.path):
                left -= entry.nbytes
        if left > 0:
            raise PassingLoadError(f"the folder of downloads has no room: it may hold {self.max_bytes} bytes")

    def _held(self, besides: str) -> Iterator[_Held]:
        for parent in (self._whole, self._pieces):
            for entry in parent.iterdir():
                if entry.name != besides:
                    with contextlib.suppress(FileNotFoundError):  # another process has removed it
                        yield _Held(entry, _bytes(entry), entry.stat().st_mtime)

    def _remove(self, path: Path) -> bool:
        with self._lock_file(path.name) as descriptor:
            if not _locked(descriptor):
                return False
            shutil.rmtree(path, ignore_errors=True)
            return True

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        # Never removed: who waits for it holds a descriptor. It has no bytes.
        descriptor = os.open(self._locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _bytes(folder: Path) -> int:
    return sum((Path(parent) / name).lstat().st_size for parent, _, names in os.walk(folder) for name in names)
