"""Which offset may be committed: the lowest of a partition's jobs that is not yet acknowledged."""

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from consumer.delivery.marks import Mark


@dataclass(slots=True)
class Start:
    """The first job that this process has read of a partition, and the mark that it found: `alone`, of that very job.

    Jobs below `alone_to` are to be tried one at a time.
    """

    offset: int
    before: Mark
    alone_to: int = 0


class PartitionOffsets:
    """The jobs of one assignment of one partition: taken in order, done in any.

    `epoch` names the assignment. `committable` is the offset to commit (Kafka: of the next job to read), None while
    there is nothing to say; every job below it is done. `committed` is the last that the broker has confirmed. `size`
    counts the bytes of the jobs in hand, `len()` the jobs. `start` is there once the start has been counted.
    """

    __slots__ = ("_done", "_open", "_read_to", "_taken_to", "committable", "committed", "epoch", "size", "start")

    def __init__(
        self,
        epoch: int,
        *,
        committable: int | None = None,
        committed: int | None = None,
        start: Start | None = None,
    ) -> None:
        self.epoch = epoch
        self.start = start
        self.committable = committable
        self.committed = committed
        self.size = 0
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._read_to: int | None = None
        self._taken_to: int | None = None

    def __len__(self) -> int:
        """Jobs taken and not yet done."""
        return len(self._open) - len(self._done)

    def read(self, first: int, last: int) -> None:
        """Records from `first` to `last` have been read; none of them is taken yet."""
        if self.committable is None:
            self.committable = first
        self._read_to = last

    def idle_at(self, position: int) -> None:
        """The consumer stands here. Where all that was read is taken and nothing is in hand, it may be committed.

        Beyond the last job there may be what is no job: transaction markers, aborted records. And a group that starts
        at the end of the log must come back to where it started, not to the end of a longer log.
        """
        if (
            not self._open
            and self._taken_to == self._read_to
            and (self.committable is None or position > self.committable)
        ):
            self.committable = position

    def taken(self, offset: int, size: int) -> None:
        """A job of what was read is in hand. Offsets of one assignment only grow, with gaps where the log has them."""
        self._open.append(offset)
        self._taken_to = offset
        self.size += size

    def leading(self, answered: Container[int]) -> Iterator[int]:
        """The jobs in hand, in order, up to the first that is not in `answered`."""
        for offset in self._open:
            if offset in self._done:
                continue
            if offset not in answered:
                return
            yield offset

    def done(self, offset: int, size: int) -> None:
        """A job's prediction or dead letter was acknowledged."""
        self.size -= size
        opened = self._open
        if opened[0] != offset:
            self._done.add(offset)
            return
        opened.popleft()
        done = self._done
        while opened and opened[0] in done:
            offset = opened.popleft()
            done.remove(offset)
        self.committable = opened[0] if opened else offset + 1


class Offsets:
    """The partitions this consumer owns. An answer to a job of an earlier epoch finds no partition of that epoch.

    `uncertain`: a transaction may have moved the group on, and it is not known (yet) whether it has. Nothing else may
    be committed meanwhile: it could move the group back.
    """

    def __init__(self) -> None:
        self._partitions: dict[int, PartitionOffsets] = {}
        self._epoch = 0
        self.uncertain = False

    @property
    def partitions(self) -> list[int]:
        """The partitions owned, in order."""
        return sorted(self._partitions)

    @property
    def jobs_in_hand(self) -> int:
        """Jobs taken and not yet done."""
        return sum(map(len, self._partitions.values()))

    @property
    def bytes_in_hand(self) -> int:
        """Bytes of the jobs taken and not yet done."""
        return sum(owned.size for owned in self._partitions.values())

    @property
    def careful(self) -> bool:
        """Whether a partition has jobs that are to be tried one at a time."""
        return any(
            owned.start is not None and (owned.committable or 0) < owned.start.alone_to
            for owned in self._partitions.values()
        )

    def of(self, partition: int) -> PartitionOffsets | None:
        """The partition's current assignment, or None where it is not owned."""
        return self._partitions.get(partition)

    def assign(self, partitions: Iterable[int]) -> None:
        """Own these partitions from now on, each in a new epoch."""
        for partition in partitions:
            self._partitions[partition] = PartitionOffsets(self._next_epoch())

    def revoke(self, partitions: Iterable[int]) -> dict[int, PartitionOffsets]:
        """Own these partitions no more; what was known of those that were owned."""
        owned = self._partitions
        return {partition: owned.pop(partition) for partition in partitions if partition in owned}

    def restart(self) -> dict[int, int]:
        """Forget every job in hand; the offset to read each partition from again, where it has been read at all."""
        for partition, owned in self._partitions.items():
            self._partitions[partition] = PartitionOffsets(
                self._next_epoch(), committable=owned.committable, committed=owned.committed, start=owned.start
            )
        return {
            partition: owned.committable
            for partition, owned in self._partitions.items()
            if owned.committable is not None
        }

    def current(self, partition: int, epoch: int) -> bool:
        """Whether work of this epoch is still this consumer's."""
        owned = self._partitions.get(partition)
        return owned is not None and owned.epoch == epoch

    def done(self, partition: int, epoch: int, offset: int, size: int) -> None:
        """A job was answered; dropped where its epoch has passed."""
        owned = self._partitions.get(partition)
        if owned is not None and owned.epoch == epoch:
            owned.done(offset, size)

    def to_commit(self) -> dict[int, int]:
        """Partition -> offset, where it has moved since the last commit that was confirmed. Safe from any thread."""
        if self.uncertain:
            return {}
        return {
            partition: owned.committable
            for partition, owned in list(self._partitions.items())
            if owned.committable is not None and owned.committable != owned.committed
        }

    def to_release(self) -> dict[int, tuple[int, str]]:
        """Partition -> offset and metadata, as this process leaves it: a start that ended well does not count.

        The mark that it found, where it has not moved on or has still jobs to try alone: none of these has ended it,
        and the search goes on with whoever comes next. Safe from any thread.
        """
        if self.uncertain:
            return {}
        released = {}
        for partition, owned in list(self._partitions.items()):
            offset, start = owned.committable, owned.start
            if offset is None:
                continue
            if start is not None and (offset == start.offset or offset < start.alone_to):
                released[partition] = offset, str(start.before)
            elif offset != owned.committed:
                released[partition] = offset, ""
        return released

    def restarted_at(self, offsets: Mapping[int, int]) -> None:
        """As `restart`, for partitions of which the broker says where the group stands; it says so of all."""
        self.uncertain = False
        for partition, offset in offsets.items():
            if (owned := self._partitions.get(partition)) is not None:
                self._partitions[partition] = PartitionOffsets(
                    self._next_epoch(), committable=offset, committed=offset, start=owned.start
                )

    def committed(self, offsets: Mapping[int, int]) -> None:
        """The broker confirmed a commit, or says that the group stands there.

        That can be further than the jobs done: a mark stands beside the next job, which may begin after a gap.
        """
        for partition, offset in offsets.items():
            owned = self._partitions.get(partition)
            if owned is not None:
                owned.committed = offset
                if owned.committable is None or owned.committable < offset:
                    owned.committable = offset

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch
