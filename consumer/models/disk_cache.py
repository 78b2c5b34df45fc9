"""Folders by id on a local disk: bounded by bytes, the least recently used leave first. Several processes may share it.

    <root>/entries/<id>/   an entry: complete, or not there
    <root>/work/<any>/     one that is being made

A folder's lock (flock(2)) says whether it is in use: shared by those who read an entry, exclusive for who makes or
removes one. It goes with the process, so that what a dead one has left behind can be told and removed.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ID = re.compile("[0-9a-f]{64}")


class UnsafeFolderError(Exception):
    """The cache's folder is in the hands of others. One line: cause and remedy."""


class DiskCache:
    """The cache in `root`, which is made if need be, with what dead processes have left there removed.

    `max_bytes` are kept; what is being made comes on top. UnsafeFolderError; OSError.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self._max_bytes = max_bytes
        self._entries = root / "entries"
        self._work = root / "work"
        self._make_folders()
        for left in list(self._work.iterdir()):
            if (lock := _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)

    @contextmanager
    def get(self, entry: str) -> Iterator[Path | None]:
        """The entry's folder, which stays while inside; None: there is none. Having been used, it is kept longer."""
        path = self._path(entry)
        lock = _locked(path, fcntl.LOCK_SH | fcntl.LOCK_NB)  # who holds it alone removes it
        if lock is None:
            yield None
            return
        try:
            with suppress(OSError):  # it only tells how old the entry is
                os.utime(path)
            yield path
        finally:
            os.close(lock)

    @contextmanager
    def make(self, entry: str, nbytes: int = 0) -> Iterator["Making"]:
        """An empty folder to be filled and published; what is not published is removed. OSError.

        Room for `nbytes` is made before, where it is known how many there will be.
        """
        path = self._path(entry)
        if nbytes:
            self._make_room(nbytes)
        work, lock = self._new_work()
        making = Making(work, path, lock)
        try:
            yield making
        finally:
            if not making.published:
                shutil.rmtree(making.folder, ignore_errors=True)
            os.close(lock)
        with suppress(OSError):  # there is room for this one, and the next will try again
            self._make_room(0)

    def drop(self, entry: str) -> None:
        """Remove an entry, unless somebody uses it."""
        self._remove(self._path(entry))

    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._listed())

    def _path(self, entry: str) -> Path:
        if not ID.fullmatch(entry):
            raise ValueError("an entry's id is a sha256 in lower-case hex")
        return self._entries / entry

    def _make_folders(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        must_be_ours(self.root)
        for folder in (self._entries, self._work):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _new_work(self) -> tuple[Path, int]:
        self._make_folders()  # whoever frees a disk may remove caches
        while True:
            work = Path(tempfile.mkdtemp(dir=self._work))
            if (lock := _locked(work, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
                return work, lock  # else a process that has just started took it for a leftover

    def _make_room(self, nbytes: int) -> None:
        listed = sorted(self._listed())
        total = sum(size for _, size, _ in listed) + nbytes
        for _, size, path in listed:
            if total <= self._max_bytes:
                return
            if self._remove(path):
                total -= size

    def _listed(self) -> list[tuple[int, int, Path]]:
        """When it was last used, bytes, and path of each entry."""
        listed = []
        for path in list(self._entries.iterdir()) if self._entries.is_dir() else ():
            with suppress(FileNotFoundError):  # another process has removed it
                listed.append((path.stat().st_mtime_ns, _size(path), path))
        return listed

    def _remove(self, path: Path) -> bool:
        lock = _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is None:
            return False
        try:
            self._make_folders()
            with tempfile.TemporaryDirectory(dir=self._work, ignore_cleanup_errors=True) as work:
                path.rename(Path(work, "removed"))  # at once, so that nobody finds half of it
        finally:
            os.close(lock)
        return True


@dataclass(slots=True)
class Making:
    """An entry that is being made in `folder`."""

    folder: Path
    _path: Path
    _lock: int
    published: bool = False

    def publish(self) -> Path:
        """Write it to the disk for good and make it the entry; where it stays until the `with` is left. OSError.

        Where another process was faster, its entry stays, and this one is gone after the `with`.
        """
        _sync(self.folder)
        try:
            try:
                self.folder.rename(self._path)
            except NotADirectoryError:  # a file or a link has its place, which nobody can use
                self._path.unlink(missing_ok=True)
                self.folder.rename(self._path)
        except OSError:
            if not self._path.is_dir():
                raise
            return self.folder
        self.folder, self.published = self._path, True
        fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _sync_one(self._path.parent)
        return self._path


def must_be_ours(root: Path) -> None:
    """UnsafeFolderError: others can write to it, and what they write would be run here. OSError."""
    info = root.stat()
    if info.st_uid != os.geteuid():
        raise UnsafeFolderError(f"{root} belongs to another user; use a folder of your own")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeFolderError(f"{root} can be written to by others; `chmod go-w` it, or use another folder")


def _locked(path: Path, operation: int) -> int | None:
    """A descriptor that holds the folder's lock; None: it is gone, or locked by others. OSError."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, operation)
        if os.path.samestat(os.fstat(lock), path.lstat()):  # else it was removed while this waited
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _size(folder: Path) -> int:
    return sum(Path(root, name).lstat().st_size for root, _, names in os.walk(folder) for name in names)


def _sync(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync_one(Path(root, name))
        _sync_one(Path(root))


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
