"""A replay or a discard from beginning to end, and again after it was killed in the middle."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from consumer.dead_letters import deletion, journal
from consumer.dead_letters.deletion import Deleted
from consumer.dead_letters.journal import Run
from consumer.dead_letters.judge import Command, Found, Rules, Stray, Verdict, every
from consumer.dead_letters.letter import Letter
from consumer.dead_letters.marks import State
from consumer.dead_letters.publisher import Publisher, TransactionFailedError
from consumer.dead_letters.reader import Reader
from consumer.dead_letters.selection import Selection
from consumer.dead_letters.survey import Plan
from consumer.delivery.addressed import Addressed
from consumer.delivery.bulk import content, partition_of_key
from consumer.delivery.sink import sendable
from consumer.delivery.topics import DEFAULT_RECORD_LIMIT, Topic, check_topics
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named
from consumer.watchdog import Watchdog

BATCH = 500
BATCH_BYTES = 4 * 1024**2
"""A transaction has no more dead letters and, but for its last, no more bytes of them."""
OUTAGE_S = 60.0
"""How long transactions may fail one after the other, as when a leader is elected, before the command ends."""
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. `asked` is that as it was written, by which an unfinished run is known again.

    `limit` is the most dead letters that one run handles, `rate` the most a second; None: no bound. `discarded`: take
    those that were discarded, instead of those that are open.
    """

    command: Command
    selection: Selection
    asked: Mapping[str, Any]
    max_replays: int = 3
    limit: int | None = None
    rate: float | None = None
    discarded: bool = False


@dataclass(slots=True)
class Batch:
    """What one transaction handles: what is due, and duplicates with the place of the first of each, all by place."""

    due: dict[tuple[int, int], Letter] = field(default_factory=dict)
    duplicates: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    size: int = 0

    def add(self, letter: Letter) -> None:
        """Add one that is due."""
        self.due[letter.place] = letter
        self.size += len(letter.dead.value or b"")

    def is_full(self, most: int, room: int | None) -> bool:
        """Whether it takes no more, where `most` may be due, and only `room` are left of --limit."""
        if self.due and len(self.due) in {most, room}:
            return True
        return len(self.duplicates) >= BATCH or self.size >= BATCH_BYTES


class Handling:
    """One order: `plan` counts, `carry_out` does it.

    `writing` says that it is to be carried out: then whoever else handles dead letters of this topic is stopped
    first, and what they had begun is either done or undone.
    """

    def __init__(
        self,
        settings: Settings,
        order: Order,
        *,
        writing: bool,
        watchdog: Watchdog,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._order = order
        self._writing = writing
        self._clock = clock
        self._now_ms = int(wall_clock() * 1000)
        self._watchdog = watchdog
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._jobs = check_topics(self._settings).jobs
            self._place = journal.find(self._settings)
            self._reader = stack.enter_context(Reader(self._settings))
            self._publisher = Publisher(self._settings, (self._jobs.record_limit, DEFAULT_RECORD_LIMIT), self._watchdog)
            if self._writing:
                if not self._place.exists:
                    journal.create(self._settings, self._place)
                    self._place = journal.find(self._settings)
                stack.callback(self._publisher.close)
                try:
                    self._publisher.open()
                except TransactionFailedError as error:
                    raise self._unavailable(error) from None
            self._journal = journal.read(self._reader, self._place)
            self._begins, ends = self._reader.bounds(self._place.topic, self._place.partitions)
            unfinished = self._journal.run
            self.resumed = unfinished if unfinished and unfinished.asked == self._order.asked else None
            """The run that this one goes on with."""
            self.given_up = unfinished if unfinished and not self.resumed else None
            """The run of another order that this one takes the place of: what it did stays done."""
            self.no_run = self._journal.no_run
            """Where the journal holds something else than a run, which this one takes the place of as well."""
            self._run = Run(
                owner=uuid.uuid4().hex,
                asked=self._order.asked,
                selection=self.resumed.selection if self.resumed else self._order.selection,
                # Never past the end: a partition may have lost records when its leader was lost.
                ends={each: min(end, ends[each]) for each, end in self.resumed.ends.items()} if self.resumed else ends,
                began_ms=self.resumed.began_ms if self.resumed else self._now_ms,
                done=self.resumed.done if self.resumed else 0,
            )
            # Whose run the journal may show when a transaction failed: any other is of somebody who took over.
            self._owners = {self._run.owner, unfinished.owner if unfinished else None}
            self._rules = Rules(
                command=self._order.command,
                selection=self._run.selection,
                wanted=State.DISCARDED if self._order.discarded else State.OPEN,
                max_replays=self._order.max_replays,
                record_limit=self._jobs.record_limit,
                now_ms=self._now_ms,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def done(self) -> int:
        """How many dead letters the run has handled, those before it was interrupted included."""
        return self._run.done

    @property
    def room(self) -> int | None:
        """How many the run may still handle; None: any number."""
        return None if self._order.limit is None else max(0, self._order.limit - self._run.done)

    def plan(self, read: Callable[[int], None]) -> Plan:
        """Go through the topic and count; `read` is told how many dead letters were read."""
        plan, asked, number = Plan(), self._run.selection.positions, 0
        for piece in self._every():
            number += len(piece)
            read(number)
            for found in piece:
                if isinstance(found, Found) and (verdict := self._judge(found)) is not Verdict.OTHER:
                    plan.add(found, verdict, asked)
        return plan

    def carry_out(self, done: Callable[[int], None]) -> None:
        """Handle what is due; `done` is told how many were handled. It may be killed at any moment.

        Raises:
            FatalError: another replay or discard took over (76), or the broker is away for long (69). What was done
                is done.
        """
        self._begin()
        self._owners = {self._run.owner}
        started, already = self._clock(), self._run.done
        for batch in self._batches():
            self._write(batch)
            done(self._run.done)
            if self._order.rate is not None:
                self._wait_until(started + (self._run.done - already) / self._order.rate)
        self._owners = {self._run.owner, None}
        self._publish([self._record(*journal.run_record(self._place, None))])

    def delete_handled(self) -> Deleted:
        """Delete what was handled, by this run or before, as far as Kafka can. FatalError."""
        return deletion.delete_handled(self._settings, self._reader, self._place, self._journal.marks)

    # going through the topic -----------------------------------------------------------------------------------------

    def _every(self) -> Iterator[list[Found | Stray]]:
        return every(self._reader, self._place.topic, self._begins, self._run.ends, self._journal.marks)

    def _judge(self, found: Found) -> Verdict:
        # The marks may have changed since the piece was read.
        state = self._journal.marks[found.letter.place]
        return self._rules.judge(found.letter, state, duplicate=found.duplicate)

    def _batches(self) -> Iterator[Batch]:
        """What is due, and the duplicates of what is handled, in pieces that a transaction takes.

        To the end of the topic even where --limit ends it sooner: a duplicate that is not marked would be open once
        its first is deleted.
        """
        rate = self._order.rate
        most = BATCH if rate is None else max(1, min(BATCH, int(rate)))
        batch = Batch()
        for piece in self._every():
            for found in piece:
                if isinstance(found, Stray):
                    continue
                if found.first is not None:
                    if self._follows(found.letter.place, found.first, batch):
                        batch.duplicates[found.letter.place] = found.first
                elif len(batch.due) != self.room and self._judge(found) is Verdict.DUE:
                    batch.add(found.letter)
                if batch.is_full(most, self.room):
                    yield batch
                    batch = Batch()
        if batch.due or batch.duplicates:
            yield batch

    def _follows(self, place: tuple[int, int], first: tuple[int, int], batch: Batch) -> bool:
        """Whether a duplicate is to be marked as its first is, or will be with this batch."""
        marks = self._journal.marks
        return first in batch.due or marks[first] not in {State.OPEN, marks[place]}

    # writing ---------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        gone = [
            self._record(*journal.gone_record(self._place, key)) for key in self._journal.marks.before(self._begins)
        ]
        stale = [self._record(key, None) for key in self._journal.stale]
        self._publish([*gone, *stale, self._record(*journal.run_record(self._place, self._run))])

    def _write(self, batch: Batch) -> None:
        """Handle these, and whatever happens, none of them twice."""
        state, before = self._order.command.state, self._run

        def records() -> list[Addressed]:
            marks = self._journal.marks
            left = [letter for place, letter in batch.due.items() if marks[place] is self._rules.wanted]
            keys = {marks.set(*letter.place, state): None for letter in left}
            keys |= {marks.set(*place, marks[first]): None for place, first in batch.duplicates.items()}
            self._run = before.with_done(before.done + len(batch.due))
            written = [self._record(*journal.mark_record(self._place, marks, key)) for key in keys]
            jobs = [self._job(letter) for letter in left] if state is State.REPLAYED else []
            return [*jobs, *written, self._record(*journal.run_record(self._place, self._run))]

        self._publish(records(), again=records)

    def _publish(self, records: list[Addressed], again: Callable[[], list[Addressed]] | None = None) -> None:
        """One transaction; if it fails, ask the journal whether it was committed, and try again what was not."""
        until = self._clock() + OUTAGE_S
        while True:
            try:
                self._publisher.write(records)
            except TransactionFailedError as error:
                self._recover(until, error)
                records = again() if again else records
            else:
                return

    def _recover(self, until: float, failure: Exception) -> None:
        """A new producer, and what the journal says now."""
        while True:
            if self._clock() > until:
                raise self._unavailable(failure) from failure
            time.sleep(RETRY_S)
            try:
                self._publisher.open()
                with Reader(self._settings) as reader:  # the other one is in the middle of the dead letters
                    self._journal = journal.read(reader, self._place)
            except TransactionFailedError as error:
                failure = error
            except FatalError as error:
                if error.exit_code not in {Exit.UNAVAILABLE, Exit.TEMPORARY}:
                    raise
                failure = error
            else:
                break
        if (self._journal.run.owner if self._journal.run else None) not in self._owners:
            raise FatalError(
                Exit.FENCED,
                f"{named(self._settings, 'dead_letters_topic')}: another replay or discard took over; "
                "this one has stopped, and what it did is marked",
            )

    def _job(self, letter: Letter) -> Addressed:
        dead, jobs = letter.dead, self._jobs
        partition = dead.position.partition
        # Where it came from, whatever partitioner its publisher has: jobs of one key stay in one partition.
        if not _is_home(letter, jobs):
            partition = partition % jobs.partitions if dead.key is None else partition_of_key(dead.key, jobs.partitions)
        return Addressed(jobs.name, partition, content(dead.key, sendable(dead.key, dead.value), letter.job_headers()))

    def _record(self, key: bytes, value: bytes | None) -> Addressed:
        return Addressed(self._place.journal, 0, content(key, value, ()))

    def _wait_until(self, moment: float) -> None:
        left = moment - self._clock()
        if left > 0:
            time.sleep(left)

    def _unavailable(self, error: Exception) -> FatalError:
        return FatalError(
            Exit.UNAVAILABLE,
            f"{named(self._settings, 'bootstrap_servers')}: the transaction failed ({error}); what was done is marked, "
            "and the same command goes on from there",
        )


def _is_home(letter: Letter, jobs: Topic) -> bool:
    position = letter.dead.position
    return position.topic == jobs.name and position.partition < jobs.partitions
