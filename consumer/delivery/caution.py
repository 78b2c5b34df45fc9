"""Jobs that end the process: found by counting starts, then by trying jobs one at a time, with no storage but Kafka's.

Each process that begins to read a partition counts up a mark beside the committed offset; an offset that moves on loses
it. Where processes have begun often enough at one offset without moving it, the jobs from there are tried alone, each
marked before. A process that finds that mark knows which job ended the one before.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from consumer.delivery.marks import Mark
from consumer.delivery.offsets import Offsets, Start
from consumer.delivery.source import Source

MARK_S = 5.0
"""How long a mark may take to be written; meanwhile nothing is predicted."""


class Caution:
    """Stands between the source and the loop, which asks it what may be taken in hand now.

    `allowed` starts at one offset are taken for accidents. After that, the jobs that an earlier process can have had in
    hand, `alone_for` at most, are tried alone.
    """

    def __init__(
        self, source: Source, offsets: Offsets, *, allowed: int, alone_for: int, told: Callable[[int, int, int], None]
    ) -> None:
        """`told` hears of each partition whose jobs are tried alone: its number, and from and up to which offset."""
        self._source = source
        self._offsets = offsets
        self._allowed = allowed
        self._alone_for = alone_for
        self._told = told
        self._held: deque[tuple[Any, int]] = deque()
        self._careful = False
        self._tried: dict[int, int] = {}  # partition -> the offset last marked as tried alone, written or not
        self._marked = False
        self._draining = False

    @property
    def careful(self) -> bool:
        """Whether jobs are tried one at a time, or one that ended processes waits for its dead letter."""
        return self._careful

    @property
    def holding(self) -> bool:
        """Whether records wait here for their turn: there is no room for more."""
        return bool(self._held)

    def pass_on(self, polled: list[list[Any]], *, idle: bool) -> tuple[list[list[Any]], list[Any]]:
        """What may be taken in hand now, for each partition in offset order; and the records that ended processes.

        `idle`: no job is being predicted, not even one of an assignment that has passed.
        """
        ended: list[Any] = []
        if polled:
            polled = self._begin(polled, ended)
        if not self._careful:
            return polled, ended
        for records in polled:
            owned = self._offsets.of(records[0].partition)
            if owned is not None:
                self._held.extend((record, owned.epoch) for record in records)
        if ended or self._draining or not idle or self._offsets.jobs_in_hand:
            return [], ended
        return self._next(), []

    def drain(self) -> None:
        """Give no more of what waits for its turn: it is read again by whoever comes next."""
        self._held.clear()
        self._draining = True

    def _begin(self, polled: list[list[Any]], ended: list[Any]) -> list[list[Any]]:
        """Count the start of partitions that are new to this process, and take out the records that ended others."""
        new = {}
        for records in polled:
            owned = self._offsets.of(records[0].partition)
            if owned is not None and owned.start is None:
                new[records[0].partition] = records[0].offset
        starts = self._counted(new) if new else {}
        begun = []
        for records in polled:
            partition = records[0].partition
            owned = self._offsets.of(partition)
            if owned is not None and partition in new:
                if starts is None:
                    # As if nothing had been read: what stands beside the offset is not to be committed over.
                    self._offsets.assign([partition])
                    self._source.reread(partition, new[partition])
                    continue
                owned.start = starts[partition]
                self._tried.pop(partition, None)
                if owned.start.alone_to:
                    self._careful = True
                    self._told(partition, owned.start.offset, owned.start.alone_to)
            start = owned.start if owned is not None else None
            # Again where the producer was lost before its dead letter was there.
            if start is not None and start.before.alone and records[0].offset == start.offset:
                ended.append(records[0])
                records = records[1:]  # noqa: PLW2901 - what is left of them
                self._careful = self._marked = True  # nothing else until its dead letter is there
            if records:
                begun.append(records)
        return begun

    def _counted(self, new: dict[int, int]) -> dict[int, Start] | None:
        """None: Kafka has not answered; nothing may be taken in hand yet."""
        found = self._source.marks(new, MARK_S)
        if found is None:
            return None
        starts = {}
        marks = {}
        for partition, first in new.items():
            offset, text = found[partition]
            before = Mark.read(text)
            if before.alone and (offset != first or self._tried.get(partition) == offset):
                before = Mark(starts=self._allowed)  # that job is gone, or did not end this process: the search goes on
            start = starts[partition] = Start(first, before)
            if before.starts >= self._allowed:
                end = self._source.end(partition, MARK_S)
                if end is None:
                    return None
                start.alone_to = min(end, first + self._alone_for)
            if not before.alone:
                marks[partition] = first, str(Mark(starts=before.starts + 1))
        if not self._source.mark(marks, MARK_S):
            return None
        # What ended a process stays marked until its dead letter is there.
        self._offsets.committed({partition: start.offset for partition, start in starts.items() if start.before.alone})
        return starts

    def _next(self) -> list[list[Any]]:
        """Nothing is in hand: the next record, alone and marked; all there are, where none has to be alone any more."""
        while self._held and not self._offsets.current(self._held[0][0].partition, self._held[0][1]):
            self._held.popleft()  # of an assignment that has passed
        if not self._offsets.careful:
            if not self._unmark():
                return []
            self._careful = False
            held = [record for record, epoch in self._held if self._offsets.current(record.partition, epoch)]
            self._held.clear()
            return [[record] for record in held]
        if not self._held:
            self._unmark()
            return []
        record, _ = self._held[0]
        owned = self._offsets.of(record.partition)
        to_be_alone = owned is not None and owned.start is not None and record.offset < owned.start.alone_to
        if not (self._mark(record) if to_be_alone else self._unmark()):
            return []
        self._held.popleft()
        return [[record]]

    def _mark(self, record: Any) -> bool:
        """Have it written that this job is tried alone, and, in the same commit, that those before it are not."""
        marks = {**self._replaced(), record.partition: (record.offset, str(Mark(alone=True)))}
        self._tried[record.partition] = record.offset
        self._marked = True
        return self._source.mark(marks, MARK_S)

    def _unmark(self) -> bool:
        """Have the marks of jobs tried alone replaced, so that nothing that follows is laid at their door."""
        if self._marked or self._tried:
            self._marked = not self._source.mark(self._replaced(), MARK_S)
        return not self._marked

    def _replaced(self) -> dict[int, tuple[int, str]]:
        """What takes the place of the marks: where a job was answered, its answer; where that was lost, what was there
        before."""
        places = {partition: (offset, "") for partition, offset in self._offsets.to_commit().items()}
        for partition, tried in self._tried.items():
            owned = self._offsets.of(partition)
            if owned is None:
                continue
            if owned.start is None:  # it was lost, has come back, and has not been read again
                found = self._source.marks([partition], MARK_S) or {}
                if found.get(partition) == (tried, str(Mark(alone=True))):
                    places[partition] = tried, str(Mark(starts=self._allowed))
            elif owned.committable is not None and owned.committable <= tried:
                places[partition] = owned.committable, str(owned.start.before)
        return places
