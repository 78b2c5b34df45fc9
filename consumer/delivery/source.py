"""Where jobs come from: poll, pause, rebalance, commit."""

from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Literal

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    FencedInstanceIdError,
    GroupMaxSizeReachedError,
    IllegalStateError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
    RetriableError,
    SaslAuthenticationFailedError,
)
from kafka.structs import MemberState

from consumer.delivery.attendance import Attendance
from consumer.delivery.connection import explained, fenced, for_consumer, not_allowed
from consumer.delivery.offsets import Offsets, PartitionOffsets
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named
from schemas.batches import allow, read_with_care

POSITION_TIMEOUT_S = 5.0
_NOT_SUCH_A_MEMBER = {
    InconsistentGroupProtocolError: ("group_id", "members of another kind are in this group; take a name of its own"),
    GroupMaxSizeReachedError: ("group_id", "the broker lets no more members into this group"),
    InvalidSessionTimeoutError: ("session_timeout_s", "the broker does not allow it"),
}


class Source:
    """The jobs topic as a member of the group sees it.

    `offsets` follows the assignment: partitions come and go in it inside `poll` and nowhere else, each assignment in an
    epoch of its own. `membership` is the client's ConsumerGroupMetadata as of the last poll.
    """

    def __init__(self, settings: Settings, client_id: str, offsets: Offsets) -> None:
        self._settings = settings
        self._topic = settings.jobs_topic
        self._offsets = offsets
        self._changes: SimpleQueue[tuple[str, list[int]]] = SimpleQueue()
        self.membership: Any = None
        self._stray: dict[int, int | None] | None = None
        with explained(settings):
            self._consumer = KafkaConsumer(**for_consumer(settings, client_id))
        read_with_care(self._consumer)
        self._attendance = Attendance(self._consumer._coordinator, settings.session_timeout_s)

    def join(self) -> None:
        """Ask to be a member of the group; the assignment comes while polling."""
        self._consumer.subscribe([self._topic], listener=_Listener(self, self._consumer, self._offsets, self._changes))

    @property
    def joined(self) -> bool:
        """Whether the group has given this member its part, be it an empty one."""
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def poll(self, timeout_s: float, at_most: int | None = None) -> list[list[Any]]:
        """What has come: for each partition its records in offset order, as kafka-python's ConsumerRecord.

        Waits for at most `timeout_s` seconds where nothing has. `at_most` records, where that is a number. Only records
        of the current assignment are given.
        """
        self._follow()
        allow(self._settings.max_in_flight_bytes)
        self._attendance.sure(self._generation)
        self._stay_member()
        try:
            # The client reads what has just been assigned, whatever is paused: for none, the first is put back.
            polled = self._consumer.poll(
                timeout_ms=int(timeout_s * 1000), max_records=None if at_most is None else max(1, at_most)
            )
        except FencedInstanceIdError:
            raise fenced(self._settings) from None
        except AuthorizationError as error:
            raise not_allowed(self._settings, error) from None
        except tuple(_NOT_SUCH_A_MEMBER) as error:
            option, why = _NOT_SUCH_A_MEMBER[type(error)]
            raise FatalError(Exit.CONFIG, f"{named(self._settings, option)}: {why} ({type(error).__name__})") from None
        except (RetriableError, SaslAuthenticationFailedError):
            # Such as what has ended the heartbeats, or a password that is changed there and not yet here.
            polled = {}
        # Before what has happened to the assignment is taken in: partitions that are lost are known to be so before the
        # client is a member again, so that this is never newer than `offsets`.
        before, self.membership = self.membership, self._consumer.group_metadata()
        if before is not None and before.member_id and before.member_id != self.membership.member_id:
            self._evicted()
        regained = self._follow()
        if self._stray is not None:
            self._readmit(self._stray)
            return []  # what this poll has given was read from where it stood before
        if not self._attendance.sure(self._generation):
            at_most = 0
        current = []
        for partition, records in polled.items():
            owned = self._offsets.of(partition.partition)
            if owned is None:
                continue
            if partition.partition in regained:
                # Nobody knows which of the two assignments these were read for.
                self._read_again(partition, regained[partition.partition], records[0].offset)
                continue
            if at_most == 0:
                self.reread(partition.partition, records[0].offset)
                continue
            owned.read(records[0].offset, records[-1].offset)
            current.append(records)
        return current

    def _stay_member(self) -> None:
        """Have the client join again where it would never do so by itself.

        A rebalance that it began because the topic has other partitions than those it has shared out is forgotten as
        soon as it has shared out these: it would wait, without partitions and heartbeats. And heartbeats that have
        ended by an error, or because another has taken this member's name, are not begun anew while nothing moves.
        """
        coordinator = self._consumer._coordinator
        beating = coordinator._heartbeat_enabled and not getattr(coordinator._heartbeat_loop_future, "is_done", True)
        if coordinator._join_task is not None or (self.joined and not beating):
            coordinator.request_rejoin()

    @property
    def _generation(self) -> tuple[str, int]:
        membership = self._consumer.group_metadata()
        return membership.member_id, membership.generation_id

    def pause_only(self, partitions: Iterable[int]) -> None:
        """Read from all partitions owned but these."""
        wanted = {TopicPartition(self._topic, partition) for partition in partitions}
        paused = self._consumer.paused()
        for partition in wanted - paused:
            self._if_owned(self._consumer.pause, partition)
        for partition in paused - wanted:
            self._if_owned(self._consumer.resume, partition)

    def commit(self, timeout_s: float) -> bool:
        """Commit what may be committed of the partitions still owned; False where it has to be tried again."""
        assigned = self._consumer.assignment()
        for partition in assigned:
            owned = self._offsets.of(partition.partition)
            if owned is not None and not len(owned):
                position = self._position(partition)
                if position is None:
                    continue
                if owned.committable is None:  # nothing has been read: what is written beside the offset stays
                    found = self.marks([partition.partition], timeout_s)
                    if found is None:
                        return False
                    if found[partition.partition][1]:
                        continue
                owned.idle_at(position)
        offsets = {
            partition: offset
            for partition, offset in self._offsets.to_commit().items()
            if TopicPartition(self._topic, partition) in assigned
        }
        how = self._commit({partition: (offset, "") for partition, offset in offsets.items()}, timeout_s)
        if how == "committed":
            self._offsets.committed(offsets)
        return how != "again"

    def release(self, timeout_s: float) -> bool:
        """The last commit: as `commit`, and a start that ended well does not count."""
        if self._offsets.uncertain:
            return True  # whoever comes next asks the broker
        return self.commit(timeout_s) and self._commit(self._offsets.to_release(), timeout_s) != "again"

    def marks(self, partitions: Iterable[int], timeout_s: float) -> dict[int, tuple[int | None, str]] | None:
        """Where the group stands in these partitions, and what is written beside; None where Kafka does not answer."""
        found: dict[int, tuple[int | None, str]] = {}
        for number in partitions:
            partition = TopicPartition(self._topic, number)
            try:
                committed = self._committed(partition, timeout_s)
            except AuthorizationError as error:
                raise not_allowed(self._settings, error) from None
            except KafkaError:
                return None
            # An offset of -1 is the broker's word for none.
            known = committed is not None and committed.offset >= 0
            found[number] = (committed.offset, committed.metadata or "") if known else (None, "")
        return found

    def mark(self, marks: Mapping[int, tuple[int, str]], timeout_s: float) -> bool:
        """Write beside the offsets of partitions, which say where the group stands; False where it was not written."""
        assigned = self._consumer.assignment()
        if any(TopicPartition(self._topic, partition) not in assigned for partition in marks):
            return False  # it is somebody else's by now, as the next poll will say
        if self._commit(marks, timeout_s) != "committed":
            return False
        self._offsets.committed({partition: offset for partition, (offset, _) in marks.items()})
        return True

    def end(self, partition: int, timeout_s: float) -> int | None:
        """The offset that the next record of a partition will get; None where Kafka does not answer."""
        place = TopicPartition(self._topic, partition)
        try:
            return int(self._consumer.end_offsets([place], timeout_ms=int(timeout_s * 1000))[place])
        except AuthorizationError as error:
            raise not_allowed(self._settings, error) from None
        except KafkaError:
            return None

    def lag(self, timeout_s: float) -> int | None:
        """Records of the partitions owned that are not done, the ones in hand included; None: no broker answers."""
        places = [TopicPartition(self._topic, partition) for partition in self._offsets.partitions]
        try:
            ends = self._consumer.end_offsets(places, timeout_ms=int(timeout_s * 1000)) if places else {}
        except AuthorizationError as error:
            raise not_allowed(self._settings, error) from None
        except KafkaError:
            return None
        lag = 0
        for place, end in ends.items():
            owned = self._offsets.of(place.partition)
            done = owned.committable if owned is not None and owned.committable is not None else self._position(place)
            lag += max(0, end - (end if done is None else done))
        return lag

    def reread(self, partition: int, offset: int) -> None:
        """Go back to this offset, of which nothing has been taken in hand."""
        self._if_owned(self._consumer.seek, TopicPartition(self._topic, partition), offset)

    def rewind(self) -> None:
        """Read every owned partition again from its first job that is not done; all that is in hand is forgotten."""
        self._follow()
        for number, offset in self._offsets.restart().items():
            self._if_owned(self._consumer.seek, TopicPartition(self._topic, number), offset)

    def rewind_to_committed(self, timeout_s: float) -> bool:
        """As `rewind`, to where the broker says that the group stands; False where it does not say."""
        self._follow()
        partitions = self._offsets.partitions
        found = self.marks(partitions, timeout_s)
        if found is None:
            return False
        known = {number: offset for number, (offset, _) in found.items() if offset is not None}
        self.rewind()
        self._offsets.restarted_at(known)
        for number, offset in known.items():
            self.reread(number, offset)
        return True

    def _evicted(self) -> None:
        """The group has put this process out, and it is a member again by another name.

        Where that happens while it waits to join, the client neither says that its partitions are lost nor forgets its
        places in them; others have had them meanwhile. What is in hand is dropped, and every place asked for again.
        """
        owned = [(number, self._offsets.of(number)) for number in self._offsets.partitions]
        self._stray = {number: one.committable if one else None for number, one in owned}
        self._offsets.revoke(self._stray)

    def _readmit(self, before: Mapping[int, int | None]) -> None:
        """Begin anew in all partitions of the new membership, if it is there by now; else with a later poll."""
        if not self.joined:
            return
        numbers = [place.partition for place in self._consumer.assignment()]
        found = self.marks(numbers, POSITION_TIMEOUT_S)
        if found is None:
            return
        self._stray = None
        self._offsets.revoke(numbers)
        self._offsets.assign(numbers)
        for number, (offset, _) in found.items():
            place = before.get(number) if offset is None else offset
            if place is not None:
                self.reread(number, place)

    def _commit(
        self, entries: Mapping[int, tuple[int, str]], timeout_s: float
    ) -> Literal["committed", "again", "gone"]:
        """Commit offsets with their metadata. Gone: this process is no member any more, and will see so as it polls."""
        if self._offsets.uncertain:
            return "again"
        if not entries:
            return "committed"
        if self.membership is None or self.membership.member_id != self._consumer.group_metadata().member_id:
            return "again"  # a member by another name: the next poll sees to what is owned
        try:
            self._consumer.commit(_as_kafka(self._topic, entries), timeout_ms=int(timeout_s * 1000))
        except FencedInstanceIdError:
            raise fenced(self._settings) from None
        except CommitFailedError:
            return "gone"
        except AuthorizationError as error:
            raise not_allowed(self._settings, error) from None
        except KafkaError:  # a rebalance in progress, a broker that does not answer
            return "again"
        return "committed"

    def close(self, timeout_s: float) -> None:
        """Leave the group."""
        self._consumer.close(autocommit=False, timeout_ms=int(timeout_s * 1000))

    def _follow(self) -> dict[int, PartitionOffsets]:
        """Bring `offsets` up to the assignment; what was there before of the partitions taken away and given back."""
        gone: dict[int, PartitionOffsets] = {}
        regained: dict[int, PartitionOffsets] = {}
        while True:
            try:
                change, partitions = self._changes.get_nowait()
            except Empty:
                return regained
            if change == "assigned":
                self._offsets.assign(partitions)
                regained.update({number: gone[number] for number in partitions if number in gone})
            else:
                gone.update(self._offsets.revoke(partitions))

    def _read_again(self, partition: TopicPartition, before: PartitionOffsets, first: int) -> None:
        """Go back to where the group stands, in a partition that was taken away and given back within one poll."""
        try:
            found = self._committed(partition, POSITION_TIMEOUT_S)
        except KafkaError:
            # Going on would not be safe. Whoever starts next begins where the group stands.
            raise FatalError(
                Exit.UNAVAILABLE, f"{named(self._settings, 'bootstrap_servers')}: the group's offsets cannot be read"
            ) from None
        known = first if before.committable is None else before.committable
        self._if_owned(self._consumer.seek, partition, known if found is None else found.offset)

    def _committed(self, partition: TopicPartition, timeout_s: float) -> Any:
        """An OffsetAndMetadata, or None. KafkaError."""
        forget_answers(self._consumer)
        return self._consumer.committed(partition, metadata=True, timeout_ms=int(timeout_s * 1000))

    def _position(self, partition: TopicPartition, timeout_s: float = 0) -> int | None:
        """Where reading goes on; None where the client does not know in time."""
        try:
            position: int | None = self._consumer.position(partition, timeout_ms=int(timeout_s * 1000))
        except (IllegalStateError, KeyError, KafkaError):
            return None
        return position

    def _if_owned(self, call: Callable[..., None], partition: TopicPartition, *arguments: Any) -> bool:
        """Call with a partition; the client's I/O thread may take it away at any moment: then nothing is done."""
        try:
            call(partition, *arguments)
        except (KeyError, ValueError, IllegalStateError):
            if partition in self._consumer.assignment():
                raise
            return False
        return True


def forget_answers(consumer: Any) -> None:
    """Have the client ask where the group stands.

    A question that was given up is kept, and its answer given to whoever asks next, however much later: the group would
    be taken back to where it stood then.
    """
    consumer._coordinator._offset_fetch_futures.clear()


class _Listener(ConsumerRebalanceListener):
    """Runs on the client's I/O thread, where nothing may wait: it commits without waiting, and leaves a note."""

    def __init__(
        self, source: Source, consumer: Any, offsets: Offsets, changes: SimpleQueue[tuple[str, list[int]]]
    ) -> None:
        self._source = source
        self._consumer = consumer
        self._offsets = offsets
        self._changes = changes

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        forget_answers(self._consumer)
        self._changes.put(("assigned", [partition.partition for partition in assigned]))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        partitions = {partition.partition: partition.topic for partition in revoked}
        entries = {number: entry for number, entry in self._offsets.to_release().items() if number in partitions}
        known = self._source.membership
        same = known is not None and known.member_id == self._consumer.group_metadata().member_id
        # Else others have had them meanwhile; or this would wait for the coordinator, and come when they have.
        if entries and same and not self._consumer._coordinator.coordinator_unknown():
            topic = next(iter(partitions.values()))
            self._consumer.commit_async(_as_kafka(topic, entries))
        self._changes.put(("revoked", list(partitions)))

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._changes.put(("lost", [partition.partition for partition in lost]))


def _as_kafka(topic: str, entries: Mapping[int, tuple[int, str]]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {
        TopicPartition(topic, partition): OffsetAndMetadata(offset, metadata, -1)
        for partition, (offset, metadata) in entries.items()
    }
