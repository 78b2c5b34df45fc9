"""What a store is asked: names with sizes, and bytes. Everything has a deadline; only this module calls fsspec."""

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

from consumer.models.remote.address import Address

LIST_S = 20.0
"""A whole listing, and finding credentials before it; together with `DOCUMENTS_S` less than `waits.LOOK_TIMEOUT_S`."""
DOCUMENTS_S = 8.0
"""Manifests and aliases that are new at one look; those that do not make it come with the next."""
PIECE_BYTES = 8 * 1024**2
"""What is asked for at a time, and what an interruption costs at most."""
PIECE_S = 60.0
"""For one of them."""
AT_ONCE = 32
"""Small files that are asked for at the same time."""

_MARKS = ("ETag", "etag", "generation", "LastModified", "last_modified", "updated", "mtime")


class UnavailableError(OSError):
    """The store did not answer, or not as it should: trying again may help. `strerror` is for people."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EIO, why)


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's size, and a number that changes with its content: made of its ETag, or of its time without one."""

    nbytes: int
    mark: int


class Objects(Protocol):
    """A store as names and bytes. For any thread; every method ends in time. Names are whatever the store says."""

    address: str
    left_out: Mapping[str, str]
    """What is wrong in what the last listing of all has passed over, by model."""

    def list(self, below: str = "") -> dict[str, Blob]:
        """All objects, or those in the folder `below`. FileNotFoundError: no such store. UnavailableError."""

    def pieces(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """An object of `size` bytes from `start` on, `PIECE_BYTES` at a time; the last piece is what is left.

        A shorter piece means that it has fewer. FileNotFoundError, UnavailableError.
        """

    def read_all(self, sizes: Mapping[str, int]) -> dict[str, bytes | OSError]:
        """Small objects by name, with the sizes that were listed, or why one cannot be had. UnavailableError: none."""


class Bucket:
    """The `Objects` below a bucket's address. The connection is made at the first question."""

    left_out: Mapping[str, str] = {}  # nothing is

    def __init__(self, address: Address) -> None:
        self.address = str(address)
        self._address = address
        self._lock = threading.Lock()
        self._connection: Future[Any] | None = None

    def list(self, below: str = "") -> dict[str, Blob]:
        """As `Objects.list`: one request per 1000 objects or so."""
        folder = f"{self._address.root}/{below}".rstrip("/")
        found = self._ask("find", folder, detail=True, timeout_s=LIST_S)
        prefix = f"{self._address.root}/"
        # A folder's own marker, which consoles of S3 make, is a file of no bytes and has no name of its own.
        return {
            name.removeprefix(prefix): _blob(info)
            for name, info in found.items()
            if name.startswith(f"{folder}/") and info.get("type") != "directory" and not _is_marker(name, info)
        }

    def pieces(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """As `Objects.pieces`: a request for each."""
        for begin in range(start, size, PIECE_BYTES):
            end = min(begin + PIECE_BYTES, size)
            yield self._bytes(self._ask("cat_file", self._path(name), start=begin, end=end, timeout_s=PIECE_S))

    def read_all(self, sizes: Mapping[str, int]) -> dict[str, bytes | OSError]:
        """As `Objects.read_all`: a request for each, `AT_ONCE` at a time."""
        names = [name for name, size in sizes.items() if size]
        answers = self._ask(
            "cat_ranges",
            [self._path(name) for name in names],
            0,
            [sizes[name] for name in names],
            on_error="return",
            batch_size=AT_ONCE,
            timeout_s=DOCUMENTS_S,
        )
        found: dict[str, bytes | OSError] = dict.fromkeys(sizes, b"")
        for name, answer in zip(names, answers, strict=True):
            found[name] = _refused(answer) if isinstance(answer, BaseException) else self._bytes(answer)
        return found

    def _path(self, name: str) -> str:
        return f"{self._address.root}/{name}"

    @staticmethod
    def _bytes(answer: Any) -> bytes:
        if not isinstance(answer, bytes):
            raise UnavailableError("it gives no bytes")
        return answer

    def _ask(self, method: str, *args: Any, timeout_s: float, **options: Any) -> Any:
        deadline = time.monotonic() + timeout_s
        try:
            filesystem = self._filesystem(timeout_s)
            # `timeout` is fsspec.asyn.sync's: past it the request is cancelled. 0 would be none.
            left_s = max(deadline - time.monotonic(), 0.001)
            return getattr(filesystem, method)(*args, timeout=left_s, **options)
        except Exception as error:  # noqa: BLE001 - what botocore, aiohttp, google and azure raise has nothing in common
            # Not chained: an error's text may hold a signed URL.
            raise _refused(error) from None

    def _filesystem(self, timeout_s: float) -> Any:
        """The client. TimeoutError: it is not there yet, and may be at the next question. UnavailableError."""
        with self._lock:
            if self._connection is None or (self._connection.done() and self._connection.exception()):
                self._connection = Future()
                threading.Thread(
                    target=self._connect, args=(self._connection,), name="store-client", daemon=True
                ).start()
            connection = self._connection
        return connection.result(timeout_s)

    def _connect(self, connection: Future[Any]) -> None:
        """On a thread of its own: what searches for credentials cannot be given a deadline, only be left waiting."""
        try:
            connection.set_result(self._address.connect())
        except BaseException as error:  # noqa: BLE001 - as in `_ask`; Azure's wants an account's name
            what = type(error).__name__
            connection.set_exception(UnavailableError(f"its client cannot be set up ({what}); is the account named?"))


def _refused(error: BaseException) -> OSError:
    if isinstance(error, UnavailableError):
        return error
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such bucket or object")
    if isinstance(error, TimeoutError):
        return UnavailableError("it did not answer in time")
    if isinstance(error, PermissionError):
        return UnavailableError("it refuses the credentials")
    return UnavailableError(f"it cannot be reached ({type(error).__name__})")


def _is_marker(name: str, info: Mapping[str, Any]) -> bool:
    return name.endswith("/") and not info.get("size")


def _blob(info: Mapping[str, Any]) -> Blob:
    mark = next((str(info[name]) for name in _MARKS if info.get(name)), "")
    # The sign bit stays free: a fingerprint's numbers are those of `os.stat`.
    return Blob(int(info.get("size") or 0), int.from_bytes(blake2b(mark.encode(), digest_size=8).digest()) >> 1)
