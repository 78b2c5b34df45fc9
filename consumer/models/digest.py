"""SHA-256 of files, and the one name of what a version consists of."""

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

CHUNK_BYTES = 1 << 20


def sha256(path: Path) -> str:
    """The file's digest, lower-case hex, read in pieces. OSError, also for what is no regular file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to must not be waited for


def content_id(digests: Mapping[str, str]) -> str:
    """One digest for files by name, in hex. No name holds the NUL byte that ends each."""
    digest = hashlib.sha256()
    for name, of_file in sorted(digests.items()):
        digest.update(f"{of_file} {name}\0".encode())
    return digest.hexdigest()
