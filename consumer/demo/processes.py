"""Consumer processes as a user starts them: `loadonce run`, with options in the environment."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from consumer.exits import Exit, FatalError
from consumer.local import watchdog

READY_S = 90.0  # importing TensorFlow takes 4 to 15 s on two cores that others use as well
STOP_S = 30.0
_LOOK_S = 0.1
_HTTP_S = 2.0


class Process:
    """One `loadonce run`. Its log, JSON lines, is `<name>.log` in `folder`, where it works as well."""

    def __init__(self, name: str, folder: Path, options: Mapping[str, str], *, group: int) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "run"],
                cwd=folder,
                env=environment(options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=group,  # Ctrl-C on the terminal is for the demo, which then stops its consumers in order
            )

    def ended(self) -> str | None:
        """How it has ended, with the last line of its log; None while it runs."""
        code = self._process.poll()
        return None if code is None else f"{self.name} ended with exit code {code}: {self._last_line()}"

    def partitions_when_ready(self) -> set[int] | None:
        """What it reads, once /readyz says yes; None before. FatalError (69) where it has ended instead."""
        if end := self.ended():
            raise FatalError(Exit.UNAVAILABLE, end)
        ports = [entry["port"] for entry in self._entries("http listening")]
        if not ports:
            return None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[-1]}/readyz", timeout=_HTTP_S) as answer:
                return set(json.load(answer)["partitions"])
        except (OSError, urllib.error.HTTPError):  # 503 while it is not ready
            return None

    def loads(self) -> dict[str, int]:
        """How often it loaded each model, by its own log."""
        return dict(Counter(entry["model"] for entry in self._entries("model loaded")))

    def stop(self) -> int:
        """SIGTERM, and its exit code; SIGKILL where it does not end within 30 s."""
        self._process.send_signal(signal.SIGTERM)  # which does nothing where it has ended
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait(STOP_S)

    def kill(self) -> None:
        """End it at once, where it still runs."""
        self._process.kill()
        self._process.wait(STOP_S)

    def _entries(self, event: str) -> Iterator[dict[str, Any]]:
        for line in self._log.read_text("utf-8", "replace").splitlines():
            if line.startswith("{") and event in line:
                entry = json.loads(line)
                if entry.get("event") == event:
                    yield entry

    def _last_line(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "nothing logged"


@contextmanager
def serving(count: int, folder: Path, options: Mapping[str, str]) -> Iterator[list[Process]]:
    """Start `count` processes; on leaving, whatever still runs is killed."""
    processes: list[Process] = []
    with _group() as group:
        try:
            for number in range(1, count + 1):
                process = Process(f"consumer-{number}", folder, options, group=group)
                processes.append(process)  # each at once, so that it is killed where the next does not start
            yield processes
        finally:
            for process in processes:
                process.kill()


@contextmanager
def _group() -> Iterator[int]:
    """A process group that is killed when this process dies, however it dies: the brokers' watchdog holds it."""
    with subprocess.Popen(  # noqa: S603 - our own script, run by our own interpreter
        [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def wait_until_ready(processes: list[Process], partitions: int) -> None:
    """Wait until each is ready and reads its share of the partitions; FatalError (69, 75) where that fails."""
    deadline = time.monotonic() + READY_S
    while True:
        shares = [process.partitions_when_ready() for process in processes]
        if all(shares) and set().union(*(share or () for share in shares)) == set(range(partitions)):
            return
        if time.monotonic() > deadline:
            late = ", ".join(process.name for process, share in zip(processes, shares, strict=True) if not share)
            raise FatalError(
                Exit.TEMPORARY, f"not ready after {READY_S:.0f} s: {late or 'the group is still rebalancing'}"
            )
        time.sleep(_LOOK_S)


def environment(options: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `options` in place of every LOADONCE_* it has."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("LOADONCE_")}
    return kept | {"TF_CPP_MIN_LOG_LEVEL": "3"} | {f"LOADONCE_{name}": value for name, value in options.items()}
