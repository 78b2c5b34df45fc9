"""The consumer's side: helper processes, started when they are needed, killed when they do not answer."""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from consumer.models.errors import (
    PassingLoadError,
    PermanentLoadError,
    StaleError,
    TookTooLongError,
    TooLargeError,
)
from consumer.models.helper import wire

SIZE = 2
"""Helpers at once: each takes a core."""
SLOW_S = 30.0
"""Helpers that have been at one version for so long do not count, ..."""
MAX_SLOW = 2
"""... up to so many: a version that never ends must not keep others from being opened."""
IDLE_S = 300.0
"""A helper that nobody needs for so long ends: it holds some 760 MB."""
START_S = 120.0
"""For a helper to start and import TensorFlow, which takes 4 to 14 s."""
REQUESTS = 100
"""After so many a helper ends, and with it whatever it has leaked."""

_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""No model ends its process so, but those do who look after the machine's memory."""

_POLL_S = 0.05
_EXIT_S = 5.0
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ENVIRONMENT_PREFIXES = ("LC_", "PYTHON", "TF_", "XLA_", "CUDA", "NVIDIA", "OMP_", "ONEDNN_")
_FOLDER = Path(__file__).parents[3]
"""The one that `consumer` is in."""

_KINDS = {"permanent": PermanentLoadError, "passing": PassingLoadError, "too-large": TooLargeError}

_log = logging.getLogger(__name__)


class Helpers:
    """Up to `size` helpers, and some in place of slow ones; `open` may be called from any thread.

    Nothing is started before it is needed.
    """

    def __init__(self, *, size: int = SIZE, idle_s: float = IDLE_S, slow_s: float = SLOW_S) -> None:
        self.started = 0
        """Helpers that have been started so far."""
        self._idle_s = idle_s
        self._size = size
        self._slow_s = slow_s
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._since: list[float] = []
        """When each of those who have a place, which are as many as helpers at work or being started, got it."""
        self._idle: list[_Helper] = []
        self._busy: set[_Helper] = set()
        self._closed = threading.Event()
        # A child ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG), so that one thread starts them all.
        self._orders: SimpleQueue[Future[_Helper] | None] = SimpleQueue()
        self._keeper = threading.Thread(target=self._keep, name="helpers", daemon=True)
        self._keeper.start()

    def open(self, request: wire.OpenRequest, timeout_s: float, cancelled: threading.Event) -> Mapping[str, object]:
        """The document of the servable, unchecked. Waits for a helper, and then at most `timeout_s` for it.

        StaleError: cancelled, or closed. PermanentLoadError: the model ended its helper. TookTooLongError: it took
        longer. PassingLoadError: it took too much of this machine's memory, or there was no helper in time. Or whatever
        LoadError the helper answers.
        """

        def given_up() -> bool:
            return cancelled.is_set() or self._closed.is_set()

        with self._place(START_S + timeout_s, given_up):
            helper = self._take(given_up)
            try:
                answer = helper.ask(request, timeout_s, given_up)
            except BaseException:
                self._end(helper)
                raise
            self._give_back(helper)
        if isinstance(answer, wire.Failed):
            raise _KINDS[answer.kind](answer.message)
        return answer.document

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        with self._lock:
            return [helper.pid for helper in (*self._busy, *self._idle)]

    @property
    def busy_pids(self) -> list[int]:
        """Process ids of those that are at work."""
        with self._lock:
            return [helper.pid for helper in self._busy]

    def close(self, timeout_s: float) -> None:
        """Kill them; whoever waits for one gets a StaleError."""
        self._closed.set()
        self._orders.put(None)
        self._keeper.join(timeout_s)
        with self._lock:
            idle, busy = self._idle[:], list(self._busy)
            self._idle.clear()
        for helper in idle:
            helper.end()
        for helper in busy:  # their threads reap them
            helper.kill()

    @contextmanager
    def _place(self, timeout_s: float, given_up: Callable[[], bool]) -> Iterator[None]:
        """Wait for a helper's place, which is had while inside."""
        deadline = time.monotonic() + timeout_s
        with self._freed:
            while not self._has_room():
                if given_up():
                    raise StaleError
                if time.monotonic() > deadline:
                    raise PassingLoadError("no helper process was free in time")
                self._freed.wait(_POLL_S)
            self._since.append(since := time.monotonic())
        try:
            yield
        finally:
            with self._freed:
                self._since.remove(since)
                self._freed.notify()

    def _has_room(self) -> bool:
        now = time.monotonic()
        slow = sum(now - since > self._slow_s for since in self._since)
        return len(self._since) < self._size + min(slow, MAX_SLOW)

    def _take(self, given_up: Callable[[], bool]) -> "_Helper":
        """An idle helper, or a new one."""
        while True:
            with self._lock:
                helper = self._idle.pop() if self._idle else None
                if helper is not None:
                    self._busy.add(helper)
            if helper is None:
                break
            if helper.alive:
                return helper
            self._end(helper)
        order: Future[_Helper] = Future()
        self._orders.put(order)
        deadline = time.monotonic() + START_S
        while True:
            with suppress(TimeoutError):
                helper = order.result(_POLL_S)
                break
            if given_up() or time.monotonic() > deadline:
                order.add_done_callback(_end_unused)
                raise StaleError if given_up() else PassingLoadError("no helper process could be started in time")
        with self._lock:
            self._busy.add(helper)
        return helper

    def _give_back(self, helper: "_Helper") -> None:
        with self._lock:
            self._busy.discard(helper)
            keep = helper.asked < REQUESTS and not self._closed.is_set()
            if keep:
                helper.idle_since = time.monotonic()
                self._idle.append(helper)
        if not keep:
            helper.end()

    def _end(self, helper: "_Helper") -> None:
        with self._lock:
            self._busy.discard(helper)
        helper.end()

    def _keep(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=min(1.0, self._idle_s))
            except Empty:
                self._end_idle()
                continue
            if order is None:
                return
            try:
                helper = _Helper()
            except Exception as error:  # noqa: BLE001 - it is the one's who has ordered
                order.set_exception(PassingLoadError(f"no helper process can be started: {type(error).__name__}"))
                continue
            self.started += 1
            order.set_result(helper)

    def _end_idle(self) -> None:
        now = time.monotonic()
        with self._lock:
            over = [helper for helper in self._idle if now - helper.idle_since > self._idle_s or not helper.alive]
            self._idle = [helper for helper in self._idle if helper not in over]
        for helper in over:
            helper.end()


class _Helper:
    """One process. For one thread at a time, but for `kill`."""

    def __init__(self) -> None:
        """OSError."""
        self.asked = 0
        self.idle_since = time.monotonic()
        self._ready = False
        self._received = bytearray()
        # TensorFlow writes there, and removes nothing when it is killed.
        self._scratch = tempfile.TemporaryDirectory(prefix="loadonce-helper-", ignore_cleanup_errors=True)
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "consumer.models.helper.worker", str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [*command, str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=_environment() | {"TMPDIR": self._scratch.name},
                    start_new_session=True,  # what it starts can be killed with it, and Ctrl-C is not for it
                )
            except BaseException:
                self._connection.close()
                self._scratch.cleanup()
                raise
        self._connection.setblocking(False)
        self.pid = self._process.pid
        _log.debug("helper started", extra={"pid": self.pid})

    @property
    def alive(self) -> bool:
        """Whether it has hung up."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def ask(
        self, request: wire.OpenRequest, timeout_s: float, given_up: Callable[[], bool]
    ) -> wire.Opened | wire.Failed:
        """Its answer. As `Helpers.open`, and after any exception it has to be ended."""
        self.asked += 1
        deadline = time.monotonic() + (timeout_s if self._ready else START_S)
        try:
            self._send(wire.request_line(request), deadline, given_up)
            while True:
                answer = wire.read_answer(self._line(deadline, given_up))
                if not isinstance(answer, wire.Ready):
                    return answer
                if not self._ready:  # once: nothing that it says gives it more time than one request has
                    self._ready = True
                    deadline = time.monotonic() + timeout_s
        except wire.WireError as error:
            raise PermanentLoadError(f"opening it upset the helper process: {error}") from None
        except TimeoutError:
            if self._ready:
                raise TookTooLongError(f"opening it took more than {timeout_s:g} s") from None
            raise PassingLoadError("the helper process did not start") from None
        except (ConnectionError, EOFError):
            raise self._ended() from None

    def kill(self) -> None:
        """End it and all that it has started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and leave nothing of it behind."""
        if self._process.returncode is None:
            self.kill()
            with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel; Popen reaps it later
                self._process.wait(_EXIT_S)
        self._connection.close()
        self._scratch.cleanup()

    def _ended(self) -> PermanentLoadError | PassingLoadError:
        """Why it has hung up."""
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return PermanentLoadError("opening it made the helper process hang up")
        finally:
            self.kill()  # what it has started
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if -code in _FROM_OUTSIDE:
            return PassingLoadError(f"the helper process that opened it was ended ({how}): was memory short?")
        return PermanentLoadError(f"opening it ended the helper process ({how})")

    def _send(self, line: bytes, deadline: float, given_up: Callable[[], bool]) -> None:
        left = memoryview(line)
        while left:
            self._wait(select.POLLOUT, deadline, given_up)
            left = left[self._connection.send(left) :]

    def _line(self, deadline: float, given_up: Callable[[], bool]) -> bytes:
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > wire.LINE_BYTES:
                raise wire.WireError(f"a line has more than {wire.LINE_BYTES} bytes")
            self._wait(select.POLLIN, deadline, given_up)
            received = self._connection.recv(65536)
            if not received:
                raise EOFError
            self._received += received
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _wait(self, event: int, deadline: float, given_up: Callable[[], bool]) -> None:
        poll = select.poll()
        poll.register(self._connection, event)
        while True:  # also one that sends a byte now and then is given no more than its time
            if given_up():
                raise StaleError
            if time.monotonic() > deadline:
                raise TimeoutError
            if poll.poll(_POLL_S * 1000):
                return


def _end_unused(order: "Future[_Helper]") -> None:
    if order.exception() is None:
        order.result().end()


def _environment() -> dict[str, str]:
    """What TensorFlow and Python may need. No option and no credential is a stranger's file's business."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    paths = [str(_FOLDER), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    # It must not take the whole GPU from the consumer.
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
