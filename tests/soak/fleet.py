"""Replicas as a supervisor keeps them: as many as are wanted, started again when they end, each life with its log."""

import math
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from consumer.exits import Exit
from tests.replica import STOP_S, Replica
from tests.soak.ledger import Problems, Span
from tests.swaps import MODEL

AGAIN_S = 1.0
BEARABLE = {Exit.OK, Exit.UNAVAILABLE, Exit.STUCK}
"""What a replica may end with by itself while brokers come and go: a supervisor starts it again."""
SAID = ("warning", "error", "critical")
NOT_COUNTED = ("dead letters", "Kafka")
"""Dead letters are the ledger's to count; the client's lines, which tell of each connection, name `Kafka...Error`."""


@dataclass
class Life:
    """One process. `state`: what has been done to it."""

    number: int
    replica: Replica
    state: Literal["running", "frozen", "leaving", "killed"] = "running"
    left_at: float = math.inf


class Fleet:
    """All replicas; `tick` is to be called all the time."""

    def __init__(self, folder: Path, options: dict[str, object]) -> None:
        self._folder = folder
        self._options = options
        self._started = 0
        self._next_start = 0.0
        self.wanted = 0
        self.lives: list[Life] = []
        self.problems = Problems()
        self.ended: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self.served: dict[int, Span] = {}

    def tick(self) -> None:
        """Take notice of those that have ended, and start as many as are wanted."""
        now = time.monotonic()
        for life in list(self.lives):
            code = life.replica.process.poll()
            if code is None and now > life.left_at + STOP_S:
                self.problems.add("does not stop", f"replica {life.number}, {STOP_S:g} s after SIGTERM")
                life.replica.kill()
                code = life.replica.process.poll()
            if code is not None:
                self._over(life, code)
        if len(self.lives) < self.wanted and now >= self._next_start:
            self._started += 1
            log = self._folder / f"replica-{self._started}.log"
            self.lives.append(Life(self._started, Replica(log, **self._options)))
            self._next_start = now + AGAIN_S

    def running(self) -> list[Life]:
        """Those that nothing is being done to."""
        return [life for life in self.lives if life.state == "running"]

    def serving(self) -> list[Life]:
        """Those of them that have been given partitions, or none: others have not got as far as that."""
        return [life for life in self.running() if life.replica.events("assigned")]

    def kill(self, life: Life) -> None:
        """SIGKILL."""
        life.state = "killed"
        life.replica.kill()

    def leave(self, life: Life) -> None:
        """SIGTERM."""
        life.state, life.left_at = "leaving", time.monotonic()
        life.replica.process.send_signal(signal.SIGTERM)

    @staticmethod
    def freeze(life: Life) -> None:
        """SIGSTOP."""
        life.state = "frozen"
        life.replica.process.send_signal(signal.SIGSTOP)

    @staticmethod
    def thaw(life: Life) -> None:
        """SIGCONT, where it is frozen."""
        if life.state == "frozen":
            life.state = "running"
            life.replica.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill what is there."""
        self.wanted = 0
        for life in self.lives:
            if life.replica.process.poll() is None:
                life.replica.kill()

    def _over(self, life: Life, code: int) -> None:
        self.lives.remove(life)
        self._next_start = time.monotonic() + AGAIN_S
        expected = {"killed": -signal.SIGKILL, "leaving": Exit.OK}.get(life.state)
        if expected is None:
            self.ended[f"by itself, {code}"] += 1
        else:
            self.ended[f"{life.state}, {code}"] += 1
        if code != expected and (expected is not None or code not in BEARABLE):
            self.problems.add("exit code", f"replica {life.number} ({life.state}) ended with {code}")
        self._read_log(life)

    def _read_log(self, life: Life) -> None:
        """When it served which versions, and what it complained about."""
        serving: tuple[int, float] | None = None
        for event in life.replica.events():
            if event.get("level") in SAID and not any(part in event["event"] for part in NOT_COUNTED):
                self.said[event["event"]] += 1
            if event["event"] == "served" and event["model"] == MODEL:
                at_ms = _ms(event["timestamp"])
                self._note(serving, at_ms)
                serving = event["version"], at_ms
        self._note(serving, time.time() * 1000)

    def _note(self, serving: tuple[int, float] | None, until_ms: float) -> None:
        if serving is not None:
            version, since_ms = serving
            self.served.setdefault(version, Span(since_ms, until_ms)).widen(since_ms, until_ms)


def _ms(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp() * 1000
