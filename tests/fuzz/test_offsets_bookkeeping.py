"""What may be committed, in any order of reading, answering, committing, marking, rebalances and restarts: never past a
job that has no answer, never over its mark, and all the way once every job has one."""

from collections.abc import Mapping

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.delivery.offsets import Offsets

PARTITIONS = (0, 1)
SIZE = 10

Job = tuple[int, int, int]
"""Partition, epoch, offset."""


class Group(RuleBasedStateMachine):
    """One member, and the broker: the log, what the group has committed, and which jobs have an answer somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = Offsets()
        self.log: dict[int, list[int]] = {number: [] for number in PARTITIONS}
        self.end = dict.fromkeys(PARTITIONS, 0)
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.marked: dict[int, int] = {}  # partition -> offset of a job with a mark beside, until the offset moves on
        self.answered: dict[int, set[int]] = {number: set() for number in PARTITIONS}
        self.position = dict.fromkeys(PARTITIONS, 0)
        self.in_hand: list[Job] = []  # of earlier epochs too: their answers still come
        self.broken = False  # the sink failed in the middle of a poll: a restart comes next

        for number in PARTITIONS:
            self.publish(number, [0, 0, 1, 0])
            self.assign(number)

    # the broker -----------------------------------------------------------------------------------------------------

    @rule(number=st.sampled_from(PARTITIONS), gaps=st.lists(st.integers(0, 3), min_size=1, max_size=4))
    def publish(self, number: int, gaps: list[int]) -> None:
        for gap in gaps:  # markers of transactions, aborted records
            self.log[number].append(self.end[number] + gap)
            self.end[number] += gap + 1

    @rule(number=st.sampled_from(PARTITIONS))
    def end_a_transaction(self, number: int) -> None:
        self.end[number] += 1

    # the source -----------------------------------------------------------------------------------------------------

    @rule(number=st.sampled_from(PARTITIONS))
    def assign(self, number: int) -> None:
        if self.offsets.of(number) is None:
            self.offsets.assign([number])
            self.position[number] = self.committed[number]

    @rule(number=st.sampled_from(PARTITIONS), in_time=st.booleans())
    def revoke(self, number: int, in_time: bool) -> None:
        if in_time and number in (places := self.offsets.to_release()):
            self.write({number: places[number][0]})
        self.marked.pop(number, None)  # the next assignment looks for itself
        self.offsets.revoke([number])

    @rule(number=st.sampled_from(PARTITIONS))
    def take_away_and_give_back(self, number: int) -> None:
        """The same jobs are in hand twice, in two epochs."""
        self.poll(number, 2, None)
        self.marked.pop(number, None)
        self.offsets.revoke([number])
        self.poll(number, 2, None)

    @rule(
        number=st.sampled_from(PARTITIONS),
        count=st.integers(1, 4),
        failing_after=st.sampled_from([None, None, None, None, 0, 1]),
    )
    def poll(self, number: int, count: int, failing_after: int | None) -> None:
        if self.broken:
            self.restart()
        self.assign(number)
        owned = self.offsets.of(number)
        found = [offset for offset in self.log[number] if offset >= self.position[number]][:count]
        if owned is None or not found:
            return
        owned.read(found[0], found[-1])
        self.position[number] = found[-1] + 1
        for index, offset in enumerate(found):
            if index == failing_after:
                self.broken = True
                return
            owned.taken(offset, SIZE)
            self.in_hand.append((number, owned.epoch, offset))

    @rule(number=st.sampled_from(PARTITIONS), further=st.integers(0, 3))
    def idle(self, number: int, further: int) -> None:
        owned = self.offsets.of(number)
        if owned is not None and not len(owned):
            jobs_ahead = [offset for offset in self.log[number] if offset >= self.position[number]]
            # Past what is no job the consumer moves without giving anything.
            self.position[number] = min(self.position[number] + further, *jobs_ahead[:1], self.end[number])
            owned.idle_at(self.position[number])

    @rule(number=st.sampled_from(PARTITIONS), confirmed=st.booleans())
    def mark(self, number: int, confirmed: bool) -> None:
        """Beside the next job, before it is in hand."""
        owned = self.offsets.of(number)
        ahead = [offset for offset in self.log[number] if offset >= self.position[number]]
        if self.broken or owned is None or len(owned) or not ahead:
            return
        self.committed[number] = ahead[0]
        if confirmed:
            self.marked[number] = ahead[0]
            self.offsets.committed({number: ahead[0]})

    # the sink -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.in_hand)
    @rule(places=st.lists(st.integers(0, 20), min_size=1, max_size=6))
    def answer(self, places: list[int]) -> None:
        for place in places:
            if self.in_hand:
                number, epoch, offset = self.in_hand.pop(place % len(self.in_hand))
                self.answered[number].add(offset)
                self.offsets.done(number, epoch, offset, SIZE)

    @rule()
    def restart(self) -> None:
        """The producer was lost: what it held may have an answer or none."""
        self.position.update(self.offsets.restart())
        self.in_hand.clear()
        self.broken = False

    @rule(confirmed=st.booleans())
    def commit(self, confirmed: bool) -> None:
        offsets = self.offsets.to_commit()
        self.write(offsets)
        if confirmed:  # or the broker did it, and its answer was lost
            self.offsets.committed(offsets)

    def write(self, offsets: Mapping[int, int]) -> None:
        for number in offsets.keys() & self.marked.keys():
            assert self.marked.pop(number) in self.answered[number], "the mark of a job without an answer is lost"
        self.committed.update(offsets)

    def teardown(self) -> None:
        """In the end all are answered."""
        if self.broken:
            self.restart()
        for number in self.offsets.partitions:
            while any(offset >= self.position[number] for offset in self.log[number]):
                self.poll(number, 4, None)
        for number, epoch, offset in self.in_hand:
            self.answered[number].add(offset)
            self.offsets.done(number, epoch, offset, SIZE)
        self.in_hand.clear()
        for number in self.offsets.partitions:
            self.idle(number, 100)
        self.commit(confirmed=True)
        assert self.offsets.to_commit() == {}
        for number in self.offsets.partitions:
            assert self.committed[number] == self.end[number], "a lag that nothing explains"

    # what holds -----------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_without_an_answer_is_committed_past(self) -> None:
        for number in PARTITIONS:
            owned = self.offsets.of(number)
            may = self.committed[number] if owned is None or owned.committable is None else owned.committable
            for offset in self.log[number]:
                assert offset >= max(may, self.committed[number]) or offset in self.answered[number]

    @invariant()
    def the_books_say_what_is_in_hand(self) -> None:
        current = [job for job in self.in_hand if self.offsets.current(job[0], job[1])]
        assert self.offsets.jobs_in_hand == len(current)
        assert self.offsets.bytes_in_hand == SIZE * len(current)


Group.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestOffsets = Group.TestCase
