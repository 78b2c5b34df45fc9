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

READY_S = 90.0  # importing TensorFlow takes 4 to 15 s on two cores that others use as well
STOP_S = 30.0
_LOOK_S = 0.1
_HTTP_S = 2.0


class Process:
    """One `loadonce run`. Its log, JSON lines, is `<name>.log` in `folder`, where it works as well."""

    def __init__(self, name: str, folder: Path, options: Mapping[str, str]) -> None:
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
                process_group=0,  # Ctrl-C on the terminal is for the demo, which then stops its consumers in order
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def partitions_when_ready(self) -> set[int] | None:
        """What it reads, once /readyz says yes; None before. FatalError (69) where it has ended instead."""
        if not self.running:
            raise FatalError(
                Exit.UNAVAILABLE, f"{self.name} ended with exit code {self._process.returncode}: {self._last_line()}"
            )
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
        if self.running:
            self._process.send_signal(signal.SIGTERM)
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
    try:
        for number in range(1, count + 1):
            process = Process(f"consumer-{number}", folder, options)
            processes.append(process)  # each at once, so that it is killed where the next does not start
        yield processes
    finally:
        for process in processes:
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
