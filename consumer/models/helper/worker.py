"""The helper's side: one request after the other, until the consumer hangs up.

    python -P -m consumer.models.helper.worker FD PARENT

FD is a connected socket, PARENT the consumer's process id.
"""

import ctypes
import errno
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from consumer.models import digest
from consumer.models.backend import load_keras
from consumer.models.engine import Code, EngineError, trim
from consumer.models.errors import LoadError, PassingLoadError, TooLargeError, describe, one_line
from consumer.models.formats import FORMATS
from consumer.models.helper import wire
from consumer.models.runtime import open_warm
from consumer.models.store import MODEL_FILES, Located

NICENESS = 10
"""Opening a model is less urgent than serving those that are open."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int, parent: int) -> None:
    """Serve what the socket asks for."""
    _end_with(parent)
    _be_modest()
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as lines:
        connection.set_inheritable(False)
        ready = False
        for line in lines:
            request = wire.read_request(line)
            try:
                _check(request)
                if not ready:
                    load_keras()
                    connection.sendall(wire.answer_line(wire.Ready()))
                    ready = True
                answer: wire.Answer = _open(request)
            except Exception as error:  # noqa: BLE001 - whatever a broken file makes a library raise
                answer = _failed(error, request.located)
            connection.sendall(wire.answer_line(answer))
            gc.collect()
            trim()


def _check(request: wire.OpenRequest) -> None:
    """What can be refused without TensorFlow, so that it is refused at once."""
    located = request.located
    with _memory_limit(request.memory_bytes):
        FORMATS[MODEL_FILES[located.model_file]].check(located, request.export.max_bytes)


def _open(request: wire.OpenRequest) -> wire.Opened:
    located = request.located
    with _memory_limit(request.memory_bytes):
        servable = FORMATS[MODEL_FILES[located.model_file]].export(located, request.target, request.export)
        load_keras().backend.clear_session()
        # Once what the consumer will do.
        open_warm(located, replace(servable, serving=request.serving), request.threads).close()
    return wire.Opened(wire.document_of(servable, request.target))


# What may pass by itself, or when an operator frees or mends something without touching the files.
_PASSING = {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ENOSPC, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ECONNREFUSED,
}  # fmt: skip


def _failed(error: Exception, located: Located) -> wire.Failed:
    """Keras and h5py raise anything for a broken file, OSError too; a file that can be read in full is the culprit."""
    if isinstance(error, LoadError):
        return wire.Failed(_kind(error), str(error))
    what = describe(error, located.path, located.path.parent.parent)
    if isinstance(error, EngineError):
        what = f"{error.kind}: {one_line(error.message, located.path, located.path.parent.parent)}"
    if _is_passing(error):
        return wire.Failed("passing", f"it cannot be opened now: {what}")
    try:
        for name in located.opened_files:
            digest.sha256(located.path / name)
    except OSError as unreadable:
        return wire.Failed("passing", f"it cannot be read: {unreadable.strerror}")
    return wire.Failed("permanent", f"it is not a model that can be opened: {what}")


def _kind(error: LoadError) -> wire.Kind:
    if isinstance(error, TooLargeError):
        return "too-large"
    return "passing" if isinstance(error, PassingLoadError) else "permanent"


def _is_passing(error: Exception) -> bool:
    if isinstance(error, EngineError):
        return error.passing
    tf = sys.modules.get("tensorflow")
    if tf is not None and hasattr(tf, "errors") and isinstance(error, tf.errors.OpError):
        return EngineError(Code(error.error_code), "").passing
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _PASSING)


@contextmanager
def _memory_limit(beyond: int | None) -> Iterator[None]:
    """No more data than there is now and `beyond` bytes more, while inside. The code of libraries does not count."""
    if beyond is None or not sys.platform.startswith("linux"):
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + beyond
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _data_bytes() -> int:
    """Private writable memory, as RLIMIT_DATA counts it: proc(5), /proc/pid/statm, `data`, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def _be_modest() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would wait for the model to end
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold a stranger's data
    if sys.platform.startswith("linux"):
        # proc(5): where memory is short, this process goes first.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with(parent: int) -> None:
    """Die with the consumer, however it dies."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
