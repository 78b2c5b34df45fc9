"""What is known of the process and its models, written by the loop's thread and read by the HTTP endpoint's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from consumer.models import events as models

# A turn of the loop takes at most as long as a commit (5 s) and making a new producer (8 s) without a broker.
STALLED_S = 30.0
STUCK_S = 120.0
"""Four times that: no supervisor has acted on it."""
UNSURE_S = 10.0
"""A process that has heard nothing for so long does not say that it is ready; a new leader is elected within that."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The process at one moment. `turned` is when the loop last went round, in monotonic seconds;
    `inferring_s` how long a model has been busy with one batch; `waiting_s` how long the oldest answer that was sent
    has not been acknowledged. `lag` in records, of the partitions owned, as of the last time that a broker told."""

    phase: Literal["starting", "running", "draining", "ended"] = "starting"
    turned: float = 0.0
    inferring_s: float = 0.0
    joined: bool = False
    partitions: tuple[int, ...] = ()
    sink_failure: str | None = None
    waiting_s: float = 0.0
    lag: int | None = None
    unreachable: bool = False
    circuit: str = "closed"


class Status:
    """The newest snapshots, each replaced as a whole by one thread, so that readers need no lock."""

    def __init__(self, clock: Callable[[], float], stall_s: float) -> None:
        self.clock = clock
        self._stall_s = stall_s
        self.snapshot = Snapshot()
        self.models = models.Snapshot()

    def why_not_live(self) -> list[str]:
        """Reasons to restart the process; none while it starts or ends."""
        snapshot = self.snapshot
        still = self.clock() - snapshot.turned
        if snapshot.phase == "running" and still > STALLED_S:
            return [f"the loop has not gone round for {still:.0f} s"]
        if snapshot.inferring_s > self._stall_s:
            return [f"a model has been busy with one batch for {snapshot.inferring_s:.0f} s"]
        return []

    def why_stuck(self) -> str | None:
        """Why nothing is to be waited for any more: the loop is in a call that does not return."""
        snapshot = self.snapshot
        still = self.clock() - snapshot.turned
        if snapshot.phase in ("running", "draining") and still > STUCK_S:
            return f"the loop has not gone round for {still:.0f} s"
        return None

    def why_not_ready(self) -> list[str]:
        """Reasons for which jobs are not being answered, or a preloaded model's are dead letters; a failing newer
        version is not one while an older serves."""
        snapshot = self.snapshot
        if snapshot.phase != "running":
            return [f"the process is {snapshot.phase}"]
        reasons = []
        still = self.clock() - snapshot.turned
        if still > UNSURE_S:
            reasons.append(f"the loop has not gone round for {still:.0f} s")
        if snapshot.circuit != "closed":
            reasons.append("too many jobs become dead letters: reading is paused (LOADONCE_DEAD_LETTER_LIMIT)")
        if snapshot.unreachable:
            reasons.append("no broker answers")
        if snapshot.waiting_s > UNSURE_S:
            reasons.append(f"no broker has acknowledged predictions for {snapshot.waiting_s:.0f} s")
        if not snapshot.joined:
            reasons.append("the consumer has not joined its group")
        if snapshot.sink_failure is not None:
            reasons.append(f"predictions cannot be published: {snapshot.sink_failure}")
        reasons += [f"model '{name}' is to be preloaded, and no version of it serves" for name in self.models.missing]
        return reasons

    def degraded(self) -> list[str]:
        """Versions that cannot be loaded, each with its reason and what answers instead: no reason to send jobs
        elsewhere, as others read the same store."""
        serving = {one.key: one.version for one in self.models.models if one.current}
        return [
            f"model '{one.key}' version {one.version}: {one.failure.reason}: {one.failure.message}; "
            + (f"version {serving[one.key]} serves" if one.key in serving else "no version serves")
            for one in self.models.failed
        ]
