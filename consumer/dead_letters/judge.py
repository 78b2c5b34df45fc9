"""What may be done with each dead letter: due, or why it is left alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from consumer.dead_letters.letter import Letter, read_letter
from consumer.dead_letters.marks import Marks, State
from consumer.dead_letters.reader import Reader
from consumer.dead_letters.seen import Seen
from consumer.dead_letters.selection import Selection
from consumer.delivery.dead_letters import record_size
from schemas.headers import Unopened


class Command(StrEnum):
    """What is done with dead letters."""

    REPLAY = "replay"
    DISCARD = "discard"

    @property
    def state(self) -> State:
        """What a dead letter is afterwards."""
        return State.REPLAYED if self is Command.REPLAY else State.DISCARDED


class Verdict(StrEnum):
    """Due, not meant at all, or why it is left alone."""

    DUE = "due"
    OTHER = "not selected"
    HANDLED = "handled before"
    DUPLICATE = "written twice: the same job is in an earlier dead letter"
    TRUNCATED = "truncated: the job is not in it"
    TOO_OFTEN = "replayed as often as --max-replays allows"
    WOULD_EXPIRE = "past its expires-at: it would expire again"
    TOO_LARGE = "too large for the jobs topic"


@dataclass(frozen=True, slots=True)
class Rules:
    """Which dead letters are meant, and which of them are left alone.

    `wanted` is the state that one must be in. `record_limit` is max.message.bytes of the jobs topic, `now_ms` what
    `expires-at` is judged by. All but the selection and the state concern replays only.
    """

    command: Command
    selection: Selection
    wanted: State
    max_replays: int
    record_limit: int
    now_ms: int

    def judge(self, letter: Letter, state: State, *, duplicate: bool) -> Verdict:
        """The verdict on one dead letter."""
        if not self.selection.matches(letter):
            return Verdict.OTHER
        if duplicate:  # what becomes of the first becomes of it
            return Verdict.DUPLICATE
        if state is not self.wanted:
            return Verdict.OTHER if state is State.OPEN else Verdict.HANDLED
        return self._replayable(letter) if self.command is Command.REPLAY else Verdict.DUE

    def _replayable(self, letter: Letter) -> Verdict:
        dead = letter.dead
        if dead.truncated:
            return Verdict.TRUNCATED
        if letter.replays >= self.max_replays:
            return Verdict.TOO_OFTEN
        if letter.expires_at is not None and letter.expires_at < self.now_ms:
            return Verdict.WOULD_EXPIRE
        if record_size(dead.key, dead.value, letter.job_headers()) > self.record_limit:
            return Verdict.TOO_LARGE
        return Verdict.DUE


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter of a topic and what has become of it; of a duplicate, the place of the first of the same job."""

    letter: Letter
    state: State
    first: tuple[int, int] | None = None

    @property
    def duplicate(self) -> bool:
        """Whether the same job is in an earlier one."""
        return self.first is not None


@dataclass(frozen=True, slots=True)
class Stray:
    """A record among the dead letters that is none by the contract, or that the client cannot read."""

    topic: str
    partition: int
    offset: int
    readable: bool

    @property
    def position(self) -> str:
        """`topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def every(
    reader: Reader, topic: str, begins: Mapping[int, int], ends: Mapping[int, int], marks: Marks
) -> Iterator[list[Found | Stray]]:
    """All records of a dead-letters topic, partition by partition, in pieces as they are read.

    The order is always the same, so that of the dead letters of one job always the same is the first.
    """
    seen = Seen()
    for partition, end in sorted(ends.items()):
        for records in reader.read(topic, partition, begins[partition], end):
            yield [_found(record, marks, seen) for record in records]


def _found(record: Any, marks: Marks, seen: Seen) -> Found | Stray:
    letter = read_letter(record)
    if letter is None:
        readable = not isinstance(record.headers, Unopened)
        return Stray(record.topic, record.partition, record.offset, readable)
    return Found(letter, marks[letter.place], seen.first(letter.digest(), letter.place))
