"""Counts of dead letters, bounded however many models and reasons a topic makes up."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Self

from consumer.dead_letters.judge import Found, Stray, Verdict
from consumer.dead_letters.letter import Letter
from consumer.dead_letters.marks import State
from consumer.dead_letters.selection import Selection
from schemas.messages import Position
from schemas.reasons import Reason, Stage
from schemas.records import MAX_MESSAGE_BYTES

MAX_GROUPS = 1_000
OTHERS = "(others)"
"""Stands for the models past MAX_GROUPS: their names come from jobs, which may make up any number."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a listing shows of a dead letter; its job, which may be large, is not kept for that."""

    position: str
    job_position: Position
    reason: Reason
    stage: Stage
    message: str
    failed_at: int
    replays: int
    truncated: bool

    @classmethod
    def of(cls, letter: Letter) -> Self:
        """The sample that this dead letter is."""
        dead = letter.dead
        return cls(
            letter.position,
            dead.position,
            dead.reason,
            dead.stage,
            dead.message[:MAX_MESSAGE_BYTES],  # others may write longer ones
            dead.failed_at,
            letter.replays,
            dead.truncated,
        )


@dataclass(slots=True)
class Group:
    """The dead letters of one reason and model; `samples` are the last that are open."""

    samples: deque[Sample]
    states: Counter[State] = field(default_factory=Counter)
    duplicates: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, found: Found) -> None:
        """Count one."""
        letter, failed_at = found.letter, found.letter.dead.failed_at
        self.first_ms = failed_at if self.first_ms is None else min(self.first_ms, failed_at)
        self.last_ms = failed_at if self.last_ms is None else max(self.last_ms, failed_at)
        if found.duplicate:
            self.duplicates += 1
            return
        self.states[found.state] += 1
        if found.state is State.OPEN:
            self.samples.append(Sample.of(letter))


class Census:
    """What a topic holds of a selection, by reason and model."""

    def __init__(self, selection: Selection, samples: int) -> None:
        self._selection = selection
        self._samples = samples
        self.groups: dict[tuple[str, str], Group] = {}
        self.foreign = 0
        """Records that are no dead letters by the contract."""

    def add(self, found: Found | Stray) -> None:
        """Count one record."""
        if isinstance(found, Stray):
            self.foreign += 1
        elif self._selection.matches(found.letter):
            self._group(found.letter).add(found)

    def total(self, state: State) -> int:
        """How many are in this state."""
        return sum(group.states[state] for group in self.groups.values())

    @property
    def duplicates(self) -> int:
        """How many were written twice."""
        return sum(group.duplicates for group in self.groups.values())

    def _group(self, letter: Letter) -> Group:
        key = (str(letter.dead.reason), letter.model)
        if key not in self.groups and len(self.groups) >= MAX_GROUPS:
            key = (str(letter.dead.reason), OTHERS)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(deque(maxlen=self._samples))
        return group


@dataclass(slots=True)
class Plan:
    """What a replay or discard would do: `due` by reason and model, and how many are left alone, by why."""

    due: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_alone: Counter[Verdict] = field(default_factory=Counter)
    positions: set[str] = field(default_factory=set)
    """Those asked for that were found."""

    def add(self, found: Found, verdict: Verdict, asked: tuple[str, ...]) -> None:
        """Count one that is meant."""
        letter = found.letter
        for position in (letter.position, str(letter.dead.position)):
            if position in asked:
                self.positions.add(position)
        if verdict is not Verdict.DUE:
            self.left_alone[verdict] += 1
            return
        key = (str(letter.dead.reason), letter.model)
        if key not in self.due and len(self.due) >= MAX_GROUPS:
            key = (key[0], OTHERS)
        self.due[key] += 1
