"""Replicas that die of some jobs, and are stopped and given other partitions as they search: these jobs are found, and
no other is accused, whatever the order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.fake_kafka import FakeKafka, Job, start

LOG = {0: [3, 4, 6, 9, 10, 11], 1: [0, 1, 2, 5, 8]}
POISON = {(0, 6), (1, 2)}
TURNS = 400


class Fleet(RuleBasedStateMachine):
    """Two replicas with two partitions between them; one that dies is started again."""

    replicas = st.sampled_from([0, 1])
    partitions = st.sampled_from(sorted(LOG))

    def __init__(self) -> None:
        super().__init__()
        self.kafka = FakeKafka(LOG)
        self.kafka.places = {
            0: (3, "loadonce starts=2"),
            1: (0, "loadonce starts=2"),
        }  # searching
        self.owner = {0: 0, 1: 0}
        self.running: list[list[tuple[Job, int]]] = [[], []]  # with their epochs: those of passed ones run on
        self.processes = [start(self.kafka, [0, 1]), start(self.kafka, [])]
        self.answered: set[Job] = set()
        self.poison: set[Job] = set()

    def of(self, who: int) -> list[int]:
        return [partition for partition, owner in self.owner.items() if owner == who]

    def begin(self, who: int) -> None:
        """Another process in the place of one that has ended."""
        self.running[who] = []
        self.processes[who] = start(self.kafka, self.of(who))

    @rule(who=replicas)
    def turn(self, who: int) -> None:
        process = self.processes[who]
        seen = len(process.poison)
        given = process.turn(idle=not any(job not in process.poison for job, _ in self.running[who]))
        self.poison |= set(process.poison[seen:])
        for job in process.poison[seen:] + given:
            owned = process.offsets.of(job[0])
            assert owned is not None
            self.running[who].append((job, owned.epoch))

    @rule(who=replicas, places=st.lists(st.integers(0, 20), max_size=6))
    def answer(self, who: int, places: list[int]) -> None:
        """Answers, in any order; of poison there is none, but its dead letter."""
        process = self.processes[who]
        for place in places:
            if not self.running[who]:
                return
            job, epoch = self.running[who].pop(place % len(self.running[who]))
            if job in POISON and job not in process.poison:
                self.begin(who)
                return
            if process.offsets.current(job[0], epoch):
                self.answered.add(job)
                process.answer(job)

    @rule(who=replicas, rounds=st.integers(1, 4))
    def go_on(self, who: int, rounds: int) -> None:
        for _ in range(rounds):
            self.turn(who)
            self.answer(who, [0] * 6)

    @rule(who=replicas)
    def commit(self, who: int) -> None:
        self.processes[who].source.commit(1)

    @rule(who=replicas)
    def lose_the_producer(self, who: int) -> None:
        self.processes[who].source.rewind()

    @rule(who=replicas)
    def stop(self, who: int) -> None:
        self.kafka.confirming = True  # it would try on; one that is cut off until its end does accuse its job
        assert self.processes[who].stop()
        self.begin(who)

    @rule(partition=partitions, who=replicas)
    def move(self, partition: int, who: int) -> None:
        if self.owner[partition] != who:
            self.processes[self.owner[partition]].consumer.take(partition)
            self.owner[partition] = who
            self.processes[who].consumer.give(partition)

    @rule(giving=st.booleans())
    def give_records(self, giving: bool) -> None:
        self.kafka.giving = giving

    @rule(confirming=st.booleans())
    def lose_the_answers_to_commits(self, confirming: bool) -> None:
        self.kafka.confirming = confirming

    def teardown(self) -> None:
        """Left in peace, they come to the end."""
        self.kafka.giving = self.kafka.confirming = True
        jobs = {(partition, offset) for partition, offsets in LOG.items() for offset in offsets}
        for _ in range(TURNS):
            if self.answered == jobs:
                break
            for who in (0, 1):
                self.turn(who)
                self.answer(who, [0] * 20)
        assert self.answered == jobs
        assert self.poison == POISON

    @invariant()
    def nobody_else_is_accused(self) -> None:
        assert self.poison <= POISON


Fleet.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestAccusations = Fleet.TestCase
