"""What the loop and the models tell, as log lines, in the status and in the metrics."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from consumer.models.events import Dropped, Snapshot
from consumer.models.runtime import Loaded
from consumer.observe.logs import logger
from consumer.observe.metrics import ModelMetrics
from consumer.observe.status import Status
from schemas.reasons import Failure, Reason, Stage

# Dead letters are told of at most this often, all of one reason and model in one line: a bad publisher must not turn
# the log into a copy of its topic.
DEAD_LETTERS_EVERY_S = 1.0


class LoopTold:
    """Listens to the loop (`consumer.events.LoopEvents`)."""

    def __init__(self, status: Status, clock: Callable[[], float]) -> None:
        self._status = status
        self._clock = clock
        self._log = logger()
        self._dead: Counter[tuple[Reason, str]] = Counter()
        self._last: dict[tuple[Reason, str], tuple[str, str]] = {}
        self._next_dead = 0.0

    def turned(self, now: float, inferring_s: float, waiting_s: float) -> None:
        """Note that the loop moves; say which jobs failed lately."""
        self._status.snapshot = replace(self._status.snapshot, turned=now, inferring_s=inferring_s, waiting_s=waiting_s)
        if self._dead and now >= self._next_dead:
            self._next_dead = now + DEAD_LETTERS_EVERY_S
            self._tell_dead()

    def assigned(self, partitions: Sequence[int], *, joined: bool) -> None:
        """Say what this process reads."""
        self._status.snapshot = replace(self._status.snapshot, partitions=tuple(partitions), joined=joined)
        self._log.info("assigned" if joined else "rebalancing", partitions=list(partitions))

    def lagging(self, records: int | None) -> None:
        """Say when brokers go away and come back."""
        gone = records is None
        if gone and not self._status.snapshot.unreachable:
            self._log.error("no broker answers")
        elif not gone and self._status.snapshot.unreachable:
            self._log.info("brokers answer again")
        lag = self._status.snapshot.lag if gone else records
        self._status.snapshot = replace(self._status.snapshot, unreachable=gone, lag=lag)

    def dead_letter(self, model_key: str | None, failure: Failure, position: str) -> None:
        """Count; the line comes with the next turn."""
        # Before a model is found its name is the publishers' to choose: such names are not counted one by one.
        found = failure.stage is not Stage.DECODE and failure.reason is not Reason.UNKNOWN_MODEL
        named = model_key if model_key and found else ""
        self._dead[failure.reason, named] += 1
        self._last[failure.reason, named] = failure.message, position

    def sink_failed(self, why: str) -> None:
        """Say that predictions cannot be published."""
        self._status.snapshot = replace(self._status.snapshot, sink_failure=why)
        self._log.error("publishing failed", why=why, then="a new producer, and all that was not acknowledged again")

    def sink_recovered(self) -> None:
        """Say that they can be again."""
        self._status.snapshot = replace(self._status.snapshot, sink_failure=None)
        self._log.info("publishing again")

    def trying_alone(self, partition: int, first: int, end: int) -> None:
        """Say which jobs go through the process one at a time, which is slow."""
        self._log.warning(
            "jobs tried one at a time",
            why="processes that began here have ended without getting further",
            partition=partition,
            first=first,
            before=end,
        )

    def circuit(self, state: str, window_s: float) -> None:
        """Say that too many jobs become dead letters, and when it is over."""
        tell = self._log.info if state == "closed" else self._log.error
        tell("dead letters limited", circuit=str(state), window_s=window_s)
        self._status.snapshot = replace(self._status.snapshot, circuit=str(state))

    def draining(self, in_hand: int) -> None:
        """Say that the process is on its way out."""
        self._status.snapshot = replace(self._status.snapshot, phase="draining")
        self._log.info("draining", jobs_in_hand=in_hand)

    def drained(self, left: int) -> None:
        """Say what is left for others."""
        self._status.snapshot = replace(self._status.snapshot, phase="ended")
        self._tell_dead()
        self._log.info("drained", jobs_left=left)

    def _tell_dead(self) -> None:
        for (reason, model), count in self._dead.items():
            message, position = self._last[reason, model]
            self._log.error(
                "dead letters", reason=str(reason), model=model, count=count, last=message, last_position=position
            )
        self._dead.clear()
        self._last.clear()


class ModelsTold:
    """Listens to the models (`consumer.models.events.ModelEvents`)."""

    def __init__(self, status: Status, metrics: ModelMetrics) -> None:
        self._log = logger()
        self._status = status
        self._metrics = metrics

    def model_loaded(self, loaded: Loaded) -> None:
        """Say which path was loaded, when, and what it took."""
        self._metrics.load_attempts.labels(self._metrics.of(loaded.key), "loaded", "").inc()
        self._metrics.load_seconds.labels(loaded.format).observe(loaded.load_seconds)
        self._log.info(
            "model loaded",
            model=loaded.key,
            version=loaded.version,
            path=loaded.path_in_store,
            format=loaded.format,
            seconds=round(loaded.load_seconds, 3),
            bytes=loaded.nbytes,
        )

    def load_attempt_failed(self, key: str, version: int, attempt: int, error: str, wait_s: float) -> None:
        """Say why, and how long the next try is waited for."""
        self._metrics.load_attempts.labels(self._metrics.of(key), "retried", str(Reason.MODEL_UNAVAILABLE)).inc()
        self._log.warning(
            "load attempt failed", model=key, version=version, attempt=attempt, error=error, wait_s=round(wait_s, 3)
        )

    def load_failed(self, key: str, version: int, failure: Failure) -> None:
        """Say what the jobs of this version are told."""
        self._metrics.load_attempts.labels(self._metrics.of(key), "failed", str(failure.reason)).inc()
        self._log.error(
            "load failed",
            model=key,
            version=version,
            reason=str(failure.reason),
            message=failure.message,
            attempts=failure.attempts,
        )

    def load_abandoned(self, key: str, version: int, why: str) -> None:
        """Say why an attempt has come to nothing although nothing has failed."""
        self._metrics.load_attempts.labels(self._metrics.of(key), "abandoned", "").inc()
        self._log.info("load abandoned", model=key, version=version, why=why)

    def waiting_for_room(self, key: str, version: int, why: str) -> None:
        """Say whose jobs wait although their model is loaded, and for what."""
        self._metrics.room_waits.labels(self._metrics.of(key)).inc()
        self._log.warning("waiting for room", model=key, version=version, why=why)

    def version_served(self, loaded: Loaded, before: int | None) -> None:
        """Say which path answers from now on."""
        self._metrics.swaps.labels(self._metrics.of(loaded.key)).inc()
        self._log.info(
            "served", model=loaded.key, version=loaded.version, path=loaded.path_in_store, version_before=before
        )

    def none_served(self, key: str, before: int) -> None:
        """Say that jobs that name no version are dead letters from now on."""
        self._log.warning("none served", model=key, version_before=before)

    def alias_served(self, key: str, alias: str, version: int | None) -> None:
        """Say which version an alias means from now on."""
        self._log.info("alias served", model=key, alias=alias, version=version)

    def model_dropped(self, loaded: Loaded, why: Dropped) -> None:
        """Say which model left memory."""
        self._metrics.drops.labels(self._metrics.of(loaded.key), why).inc()
        self._log.info("model dropped", model=loaded.key, version=loaded.version, why=why)

    def store_looked(self, models: Collection[str]) -> None:
        """Count; a line for each would bury the others."""
        self._metrics.store_looks.inc()
        self._metrics.keep_only(models)

    def store_problem(self, text: str) -> None:
        """Say what in the store is not as it should be."""
        self._log.warning("store problem", problem=text)

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        """Keep it for whoever asks over HTTP."""
        self._status.models = snapshot
