"""What may be done with each dead letter: due, or why it is left alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from consumer.dead_letters.letter import Letter, read_letter
from consumer.dead_letters.marks import Marks, State
from consumer.dead_letters.reader import Reader
from consumer.dead_letters.seen import Seen
from consumer.dead_letters.selection import Selection
from consumer.delivery.dead_letters import record_size


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
        if state is not self.wanted:
            return Verdict.HANDLED
        return self._replayable(letter, duplicate) if self.command is Command.REPLAY else Verdict.DUE

    def _replayable(self, letter: Letter, duplicate: bool) -> Verdict:
        dead = letter.dead
        if duplicate:
            return Verdict.DUPLICATE
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
    """A dead letter of a topic, what has become of it, and whether the same job is in an earlier one."""

    letter: Letter
    state: State
    duplicate: bool


def every(
    reader: Reader, topic: str, begins: Mapping[int, int], ends: Mapping[int, int], marks: Marks
) -> Iterator[list[Found | None]]:
    """All dead letters of a topic, partition by partition, in pieces as they are read; None for what is no dead letter.

    The order is always the same, so that of the dead letters of one job always the same is the first.
    """
    seen = Seen()
    for partition, end in sorted(ends.items()):
        for records in reader.read(topic, partition, begins[partition], end):
            found: list[Found | None] = []
            for record in records:
                letter = read_letter(record)
                if letter is None:
                    found.append(None)
                    continue
                duplicate = not seen.add(letter.digest())
                found.append(Found(letter, marks[partition, record.offset], duplicate))
            yield found or [None]
