"""What is done to a running system, in an order and at times that a seed decides."""

import contextlib
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from confluent_kafka.admin import AdminClient

from consumer.local import LocalKafka, Node
from tests.conftest import Topics
from tests.soak.fleet import Fleet
from tests.soak.ledger import Problems
from tests.soak.versions import Versions

VERSIONS = ("new version", "corrupt version")
KINDS = (
    "kill",
    "freeze",
    "restart",
    "add",
    "remove",
    "rebalance",
    "broker",
    *VERSIONS,
)
PAUSE_S = (4.0, 14.0)
"""Between two of them: from, to."""
FROZEN_FOR = 1.4
"""Session timeouts."""
REPLICAS = (2, 4)
AWAY_S = (2.0, 8.0)
"""How long a broker is not there."""
IN_SYNC_S = 120.0
VISIT_S = 3.0
JOIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """Wait, then do this; `pick`, 0 to 1, says to which."""

    pause_s: float
    kind: str
    pick: float


def steps(seed: int) -> Iterator[Step]:
    """Without end: all kinds in a random order, again and again."""
    drawn = random.Random(seed)
    while True:
        for kind in drawn.sample(KINDS, len(KINDS)):
            yield Step(drawn.uniform(*PAUSE_S), kind, drawn.random())


def good_versions(seed: int, minutes: float) -> list[int]:
    """The numbers of those that are not corrupt, from 2, of a run of so many minutes."""
    planned = islice(steps(seed), int(minutes * 60 / (sum(PAUSE_S) / 2)) + len(KINDS))
    kinds = [step.kind for step in planned if step.kind in VERSIONS]
    return [number for number, kind in enumerate(kinds, start=2) if kind == VERSIONS[0]]


class Chaos:
    """Does what the seed says to the fleet, the brokers and the store; `tick` is to be called all the time."""

    def __init__(
        self,
        seed: int,
        *,
        fleet: Fleet,
        kafka: LocalKafka,
        topics: Topics,
        versions: Versions,
        session_s: float,
        tell: Callable[[str], None],
    ) -> None:
        self._steps = steps(seed)
        self._fleet = fleet
        self._kafka = kafka
        self._topics = topics
        self._versions = versions
        self._session_s = session_s
        self._tell = tell
        self._step = next(self._steps)
        self._due = math.inf
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._aside = ThreadPoolExecutor(2, "chaos")
        self._broker: Future[None] | None = None
        self._visit: Future[None] | None = None
        self._ending = threading.Event()
        self.done: Counter[str] = Counter()
        self.problems = Problems()

    def begin(self) -> None:
        """From now on."""
        self._due = time.monotonic() + self._step.pause_s

    def tick(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            entry[1]()
        if now >= self._due:
            step, self._step = self._step, next(self._steps)
            self._due = now + self._step.pause_s
            if done := self._do(step):
                self.done[step.kind] += 1
                self._tell(done)

    def settle(self) -> None:
        """Do no more, and let everything go on."""
        self._ending.set()
        for _, resume in self._later:
            resume()
        self._later.clear()

    def settled(self) -> bool:
        """Whether all brokers are back, and whoever visited the group has left."""
        if not all(task is None or task.done() for task in (self._broker, self._visit)):
            return False
        self._noted(self._broker)
        self._noted(self._visit)
        self._aside.shutdown()
        return True

    def _do(self, step: Step) -> str:
        """What has been done; nothing where that cannot be done now."""
        if step.kind in VERSIONS:
            return self._versions.put(corrupt=step.kind == VERSIONS[1])
        if step.kind == "broker":
            return self._lose_broker(step.pick)
        if step.kind == "rebalance":
            return self._be_visited()
        return self._do_to_a_replica(step)

    def _do_to_a_replica(self, step: Step) -> str:
        least, most = REPLICAS
        if step.kind == "add":
            if self._fleet.wanted == most:
                return ""
            self._fleet.wanted += 1
            return f"a replica is added, {self._fleet.wanted} are wanted"
        # Whoever is still opening its models is left alone: on a small machine nobody would ever serve.
        serving = self._fleet.serving()
        if not serving or (step.kind == "remove" and self._fleet.wanted == least):
            return ""
        life = serving[int(step.pick * len(serving))]
        if step.kind == "kill":
            self._fleet.kill(life)
        elif step.kind == "freeze":
            self._fleet.freeze(life)
            self._later.append((time.monotonic() + FROZEN_FOR * self._session_s, lambda: self._thaw(life.number)))
        else:
            self._fleet.wanted -= step.kind == "remove"
            self._fleet.leave(life)
        done = {"kill": "SIGKILL", "freeze": "SIGSTOP", "restart": "SIGTERM, to be replaced", "remove": "SIGTERM"}
        return f"replica {life.number}: {done[step.kind]}"

    def _thaw(self, number: int) -> None:
        for life in self._fleet.lives:
            if life.number == number:
                self._fleet.thaw(life)
                self._tell(f"replica {number}: SIGCONT")

    def _lose_broker(self, pick: float) -> str:
        if self._broker is not None and not self._broker.done():
            return ""
        self._noted(self._broker)
        nodes = self._kafka.nodes
        node = nodes[int(pick * len(nodes))]
        least, most = AWAY_S
        self._broker = self._aside.submit(self._kill_broker, node, least + (most - least) * (pick * len(nodes) % 1))
        return f"broker {node.id}: SIGKILL"

    def _kill_broker(self, node: Node, away_s: float) -> None:
        node.kill()
        self._ending.wait(away_s)
        node.start()
        admin = AdminClient({"bootstrap.servers": self._kafka.bootstrap_servers, "log_level": 2})
        deadline = time.monotonic() + IN_SYNC_S
        while not self._in_sync(admin):
            if time.monotonic() > deadline:
                raise TimeoutError(f"broker {node.id} is not in sync {IN_SYNC_S:g} s after it has come back")
            time.sleep(0.5)
        self._tell(f"broker {node.id} is back and in sync")

    def _in_sync(self, admin: AdminClient) -> bool:
        every = admin.list_topics(timeout=10).topics.values()
        size = len(self._kafka.nodes)
        return all(len(partition.isrs) == size for topic in every for partition in topic.partitions.values())

    def _be_visited(self) -> str:
        if self._visit is not None and not self._visit.done():
            return ""
        self._noted(self._visit)
        self._visit = self._aside.submit(self._join_and_leave)
        return "a member that answers nothing joins the group, and leaves it"

    def _join_and_leave(self) -> None:
        from kafka import KafkaConsumer, errors
        from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

        with contextlib.suppress(errors.KafkaError):  # a broker may be away
            visitor = KafkaConsumer(
                self._topics.jobs,
                bootstrap_servers=self._kafka.bootstrap_servers,
                group_id=self._topics.jobs,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                partition_assignment_strategy=[CooperativeStickyAssignor],
                session_timeout_ms=int(self._session_s * 1000),
                heartbeat_interval_ms=int(self._session_s * 1000 / 3),
            )
            try:
                deadline = time.monotonic() + JOIN_S
                while not visitor.assignment() and time.monotonic() < deadline and not self._ending.is_set():
                    visitor.poll(timeout_ms=200, max_records=1)
                leave_at = time.monotonic() + VISIT_S
                while time.monotonic() < leave_at:
                    visitor.poll(timeout_ms=200, max_records=1)
            finally:
                visitor.close(autocommit=False)

    def _noted(self, task: "Future[None] | None") -> None:
        if task is not None and (error := task.exception()) is not None:
            self.problems.add("chaos", f"{type(error).__name__}: {error}")
