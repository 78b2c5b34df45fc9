"""One consumer process of several: started, asked, and started again when it has ended by itself."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consumer.exits import Exit

LEAST_BACKOFF_S = 1.0
MOST_BACKOFF_S = 30.0
STEADY_S = 60.0
"""One that has run for so long is not in a crash loop."""
ASK_S = 2.0
FINAL = frozenset({Exit.USAGE, Exit.STORE_MISSING, Exit.REFUSED, Exit.CONFIG})
"""What starting again cannot mend."""


class Worker:
    """`number` counts from 0. `environ` is its environment; `clock` gives monotonic seconds."""

    def __init__(
        self, number: int, config: Path | None, environ: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self.number = number
        self.restarts = 0
        self._config = config
        self._environ = environ
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None  # its port comes from there; where it ends, so does the worker
        self._text = b""
        self._started = 0.0
        self._backoff_s = 0.0
        self._due = clock()
        self._port: int | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process that has not been seen to end."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return self._process.pid if self._process else None

    def look(self) -> int | None:
        """Start it where that is due; the exit code of the process that has ended since the last look."""
        if self._process is None:
            if self._clock() >= self._due:
                self._start()
            return None
        self._listen()
        code = self._process.poll()
        if code is None:
            return None
        now = self._clock()
        steady = now - self._started >= STEADY_S
        self._backoff_s = LEAST_BACKOFF_S if steady else min(MOST_BACKOFF_S, max(LEAST_BACKOFF_S, 2 * self._backoff_s))
        self._due = now + self._backoff_s
        self._forget()
        return code

    @property
    def due_in_s(self) -> float:
        """How long until it is started again."""
        return max(0.0, self._due - self._clock())

    def send(self, number: signal.Signals) -> None:
        """Pass a signal on to it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def ask(self, path: str, *, accept: str = "", method: str = "GET") -> tuple[int, bytes] | None:
        """Status and body of its answer to an HTTP request; None: it does not answer."""
        port = self._port
        if port is None:
            return None
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"accept": accept}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, ValueError):
            return None

    def document(self, path: str, method: str = "GET") -> Any:
        """As `ask`, of a JSON answer; None also where it is none."""
        answer = self.ask(path, method=method)
        try:
            return None if answer is None else json.loads(answer[1])
        except ValueError:
            return None

    def _start(self) -> None:
        mine, its = socket.socketpair()
        mine.setblocking(False)
        config = ["--config", str(self._config)] if self._config else []
        command = [sys.executable, "-m", "consumer", "run", "--workers", "1", "--line", str(its.fileno()), *config]
        with its:
            self._process = subprocess.Popen(  # noqa: S603 - this program
                command,
                env=dict(self._environ),
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                # The terminal's Ctrl-C is for the one above, which passes it on.
                start_new_session=True,
            )
        self.restarts += self._started > 0
        self._started, self._line = self._clock(), mine

    def _listen(self) -> None:
        """Its port, once it has told."""
        if self._line is None or self._port is not None:
            return
        try:
            self._text += self._line.recv(64)
        except (BlockingIOError, ConnectionError):
            return
        if self._text.endswith(b"\n"):
            self._port = int(self._text)

    def _forget(self) -> None:
        if self._line is not None:
            self._line.close()
        self._process = self._line = self._port = None
        self._text = b""
