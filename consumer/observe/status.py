"""What is known of the process and its models, written by the loop's thread and read by the HTTP endpoint's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from consumer.models import events as models

# A turn of the loop takes at most as long as a commit (5 s) and making a new producer (8 s) without a broker.
STALLED_S = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The process at one moment. `turned` is when the loop last went round, in monotonic seconds;
    `inferring_s` how long a model has been busy with one batch."""

    phase: Literal["starting", "running", "draining", "ended"] = "starting"
    turned: float = 0.0
    inferring_s: float = 0.0
    joined: bool = False
    partitions: tuple[int, ...] = ()
    sink_failure: str | None = None


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

    def why_not_ready(self) -> list[str]:
        """Reasons for which jobs are not being answered, or a preloaded model's are dead letters; a failing newer
        version is not one while an older serves."""
        snapshot = self.snapshot
        if snapshot.phase != "running":
            return [f"the process is {snapshot.phase}"]
        reasons = []
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
