"""Whether this process can know that it is still a member of its group.

One that stood still for longer than a session (SIGSTOP, a suspended machine) was put out meanwhile, and others read
its partitions. It goes on as if nothing had happened, and the client gives it what it had fetched before and what it
fetches now, until an answer to a heartbeat tells; that is up to a third of a session later.
"""

import time
from collections.abc import Callable
from typing import Any


class Attendance:
    """Of the member that a kafka-python coordinator stands for. `session_s`: how long the group waits for it."""

    def __init__(self, coordinator: Any, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._coordinator = coordinator
        self._session_s = session_s
        self._clock = clock  # the one that the client's heartbeats go by
        self._looked = clock()
        self._generation: object = None
        self._doubted: float | None = None

    def sure(self, generation: object) -> bool:
        """To be asked again and again. False after a gap of a session, until the group has answered a heartbeat since,
        or has taken the member in anew: in another `generation`."""
        now = self._clock()
        if now - self._looked > self._session_s:
            self._doubted = now
            self._hurry()
        elif self._doubted is not None and (generation != self._generation or self._answered(self._doubted)):
            self._doubted = None
        self._looked, self._generation = now, generation
        return self._doubted is None

    def _answered(self, since: float) -> bool:
        """Whether a heartbeat was sent since then, and answered. There is one at a time."""
        heartbeat = self._coordinator.heartbeat
        return bool(since < heartbeat.last_send < heartbeat.last_receive)

    def _hurry(self) -> None:
        """Have a heartbeat sent at once, as after one that failed."""
        self._coordinator.heartbeat.fail_heartbeat()
        self._coordinator._heartbeat_wakeup.notify()
