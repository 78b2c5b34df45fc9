"""What may be committed: the lowest offset of a partition that is not yet acknowledged."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.marks import Mark
from consumer.delivery.offsets import Offsets, PartitionOffsets, Start

JOB = 10  # bytes


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Offsets in the order of reading, with gaps, and in an order of answering, not all of them answered."""
    gaps = draw(st.lists(st.integers(1, 5), min_size=1, max_size=40))
    start = draw(st.integers(0, 1_000))
    offsets = [start + sum(gaps[:index]) for index in range(len(gaps))]
    answered = draw(st.permutations(offsets))
    return offsets, list(answered[: draw(st.integers(0, len(offsets)))])


@given(histories())
def test_every_job_below_what_may_be_committed_is_done_and_nothing_done_is_kept_back(
    history: tuple[list[int], list[int]],
) -> None:
    offsets, answered = history
    partition = PartitionOffsets(1)
    partition.read(offsets[0], offsets[-1])
    for offset in offsets:
        partition.taken(offset, JOB)
    for count, offset in enumerate(answered, 1):
        partition.done(offset, JOB)
        open_offsets = sorted(set(offsets) - set(answered[:count]))
        assert partition.committable == (open_offsets[0] if open_offsets else offsets[-1] + 1)
        assert len(partition) == len(open_offsets)
        assert partition.size == JOB * len(open_offsets)


@given(histories(), st.integers(1, 10))
def test_jobs_taken_while_others_are_answered(history: tuple[list[int], list[int]], lead: int) -> None:
    offsets, _ = history
    partition = PartitionOffsets(1)
    for index, offset in enumerate(offsets):
        partition.read(offset, offset)
        partition.taken(offset, JOB)
        if index >= lead:
            partition.done(offsets[index - lead], JOB)
            assert partition.committable == offsets[index - lead + 1]


def test_nothing_to_commit_before_anything_was_read() -> None:
    offsets = Offsets()
    offsets.assign([0])
    assert offsets.to_commit() == {}


def test_what_was_read_and_not_done_is_committed_as_the_place_to_read_again() -> None:
    partition = PartitionOffsets(1)
    partition.read(7, 9)
    assert partition.committable == 7


def test_only_what_has_moved_is_committed() -> None:
    offsets = Offsets()
    offsets.assign([0, 1])
    for number in (0, 1):
        partition = offsets.of(number)
        assert partition is not None
        partition.read(0, 0)
        partition.taken(0, JOB)
        partition.done(0, JOB)
    assert offsets.to_commit() == {0: 1, 1: 1}
    offsets.committed({0: 1})
    assert offsets.to_commit() == {1: 1}


def test_an_answer_of_an_earlier_epoch_changes_nothing() -> None:
    offsets = Offsets()
    offsets.assign([0])
    first = offsets.of(0)
    assert first is not None
    offsets.revoke([0])
    offsets.assign([0])
    second = offsets.of(0)
    assert second is not None
    second.read(5, 5)
    second.taken(5, JOB)
    offsets.done(0, first.epoch, 5, JOB)
    assert second.committable == 5
    assert not offsets.current(0, first.epoch)
    assert offsets.current(0, second.epoch)


def test_a_restart_forgets_what_is_in_hand_and_keeps_what_was_done() -> None:
    offsets = Offsets()
    offsets.assign([0, 1])
    partition = offsets.of(0)
    assert partition is not None
    partition.read(3, 5)
    for offset in (3, 4, 5):
        partition.taken(offset, JOB)
    partition.done(3, JOB)
    assert offsets.restart() == {0: 4}
    assert offsets.jobs_in_hand == 0
    assert offsets.bytes_in_hand == 0
    assert offsets.to_commit() == {0: 4}
    assert not offsets.current(0, partition.epoch)


def test_where_nothing_is_in_hand_the_place_where_the_consumer_stands_is_committed() -> None:
    partition = PartitionOffsets(1)
    partition.idle_at(10)  # the end of a log that is to be read from its end
    assert partition.committable == 10
    partition.read(12, 12)
    partition.taken(12, JOB)
    partition.idle_at(15)  # behind a transaction marker
    assert partition.committable == 10
    partition.done(12, JOB)
    assert partition.committable == 13
    partition.idle_at(15)
    assert partition.committable == 15
    partition.idle_at(14)
    assert partition.committable == 15


def test_what_was_read_and_not_taken_is_never_committed_past() -> None:
    partition = PartitionOffsets(1)
    partition.read(3, 9)
    partition.idle_at(10)
    assert partition.committable == 3
    partition.taken(3, JOB)
    partition.done(3, JOB)
    partition.idle_at(10)
    assert partition.committable == 4


def begun(start: Start, last: int) -> tuple[Offsets, PartitionOffsets]:
    """One partition, read up to `last`, its start counted beside its first job."""
    offsets = Offsets()
    offsets.assign([0])
    partition = offsets.of(0)
    assert partition is not None
    partition.read(start.offset, last)
    partition.start = start
    offsets.committed({0: start.offset})
    return offsets, partition


def test_a_mark_beyond_a_gap_is_not_committed_over() -> None:
    offsets, partition = begun(Start(8, Mark()), 10)
    partition.taken(8, JOB)
    partition.done(8, JOB)
    assert offsets.to_commit() == {0: 9}
    offsets.committed({0: 10})  # the next job is marked there
    assert offsets.to_commit() == {}
    partition.taken(10, JOB)
    assert offsets.to_commit() == {}
    partition.done(10, JOB)
    assert offsets.to_commit() == {0: 11}


def test_what_was_found_is_put_back_where_nothing_was_done() -> None:
    offsets, partition = begun(Start(5, Mark(starts=1)), 7)
    partition.taken(5, JOB)
    assert offsets.to_release() == {0: (5, "loadonce starts=1")}
    partition.done(5, JOB)
    assert offsets.to_release() == {0: (6, "")}
    offsets.committed({0: 6})
    assert offsets.to_release() == {}


def test_what_was_found_is_put_back_while_jobs_are_to_be_tried_alone() -> None:
    offsets, partition = begun(Start(5, Mark(starts=2), alone_to=7), 9)
    for offset, left in ((5, "loadonce starts=2"), (6, "loadonce starts=2"), (7, "")):
        offsets.committed({0: offset})
        assert offsets.to_release().get(0, (offset, "")) == (offset, left)
        partition.taken(offset, JOB)
        assert offsets.to_release().get(0, (offset, "")) == (offset, left)
        partition.done(offset, JOB)


def test_poison_without_its_dead_letter_is_left_as_it_was_found() -> None:
    offsets, partition = begun(Start(7, Mark(alone=True)), 9)
    partition.taken(7, JOB)
    assert offsets.to_commit() == {}
    assert offsets.to_release() == {0: (7, "loadonce alone")}
    offsets.restart()
    assert offsets.to_release() == {0: (7, "loadonce alone")}


def test_nothing_is_left_of_a_partition_that_was_not_read() -> None:
    offsets = Offsets()
    offsets.assign([0])
    assert offsets.to_release() == {}
