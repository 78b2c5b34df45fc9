"""What was published and what it became, by id and position; and what of it does not add up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.soak.jobs import BAD, kind_of, right_values
from tests.swaps import MODEL

SLACK_MS = 2_000
"""Between a replica's serving a version and its log's saying so."""
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """One record of an output topic: a prediction, or a dead letter where there is a reason. Times are Unix, in ms."""

    number: int
    made_ms: int
    answered_ms: int
    position: str = ""
    job: bytes = b""
    """The position of the job that it answers."""
    reason: str | None = None
    model: str = ""
    version: int = 0
    values: tuple[float, ...] = ()


@dataclass(slots=True)
class Span:
    """From when until when; in ms since the epoch."""

    since_ms: float
    until_ms: float

    def widen(self, since_ms: float, until_ms: float) -> None:
        """Include this, too."""
        self.since_ms = min(self.since_ms, since_ms)
        self.until_ms = max(self.until_ms, until_ms)


@dataclass(slots=True)
class Seen:
    """Answers of one version: the first of them, and the youngest job that got one."""

    first: Answer
    youngest: Answer
    count: int = 0


@dataclass
class Problems:
    """What is wrong, by kind: how often, and some examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str, times: int = 1) -> None:
        """One more of this kind."""
        self.counts[kind] += times
        if len(found := self.examples.setdefault(kind, [])) < EXAMPLES:
            found.append(example)

    def __bool__(self) -> bool:
        return bool(self.counts)


class Ledger:
    """Every answer is looked at as it comes; `settle` then says whether all of it adds up."""

    def __init__(self, seed: int, *, exactly_once: bool) -> None:
        self._seed = seed
        self._exactly_once = exactly_once
        self._times = bytearray()  # by number; 255 is many
        self._jobs: set[bytes] = set()
        self._versions: dict[int, Seen] = {}
        self.problems = Problems()
        self.answered = 0
        self.predictions: Counter[str] = Counter()  # by model; as the dead letters, each job once
        self.dead_letters: Counter[str] = Counter()  # by reason
        self.duplicates = 0
        self.published_twice = 0
        """Numbers that came as two jobs: an idempotent producer that begins anew after an outage (librdkafka's: with
        the next epoch) writes again what the brokers have and could not acknowledge."""
        self.longest_wait_ms = 0

    def take(self, answer: Answer) -> None:
        """Enter an answer."""
        number = answer.number
        if number >= len(self._times):
            self._times.extend(bytes(number + 1 - len(self._times)))
        if answer.job in self._jobs:
            self.duplicates += 1
            if self._exactly_once:
                self.problems.add("answered twice", f"job {number}, {answer.position}")
        else:
            self._jobs.add(answer.job)
            if self._times[number]:
                self.published_twice += 1
            else:
                self.answered += 1
            if answer.reason is None:
                self.predictions[answer.model] += 1
            else:
                self.dead_letters[answer.reason] += 1
        self._times[number] = min(self._times[number] + 1, 255)
        self.longest_wait_ms = max(self.longest_wait_ms, answer.answered_ms - answer.made_ms)
        self._check(answer)

    @property
    def versions(self) -> dict[int, int]:
        """Answers by version of the model whose versions are swapped."""
        return {version: seen.count for version, seen in sorted(self._versions.items())}

    def settle(self, published: int, served: Mapping[int, Span]) -> Problems:
        """All that is wrong: `served` says when replicas served which versions, by their logs."""
        lost = [number for number in range(published) if number >= len(self._times) or not self._times[number]]
        if lost:
            self.problems.add("lost", f"jobs {', '.join(map(str, lost[:20]))}", len(lost))
        strange = [number for number in range(published, len(self._times)) if self._times[number]]
        if strange:
            self.problems.add("never published", f"jobs {', '.join(map(str, strange[:20]))}", len(strange))
        for version, seen in sorted(self._versions.items()):
            span = served.get(version)
            if span is None:
                what = f"job {seen.first.number} by version {version}, which nobody served"
                self.problems.add("wrong version", what, seen.count)
            elif seen.first.answered_ms < span.since_ms - SLACK_MS:
                self.problems.add("wrong version", f"job {seen.first.number} by version {version} before it was served")
            elif seen.youngest.made_ms > span.until_ms + SLACK_MS:
                late_ms = seen.youngest.made_ms - span.until_ms
                what = f"job {seen.youngest.number} by version {version}, {late_ms:.0f} ms after it had been replaced"
                self.problems.add("wrong version", what)
        return self.problems

    def _check(self, answer: Answer) -> None:
        number, kind = answer.number, kind_of(self._seed, answer.number)
        expected, got = BAD.get(kind, "a prediction"), answer.reason or "a prediction"
        if expected != got:
            self.problems.add("wrong outcome", f"job {number} ({kind}) became {got}, {answer.position}")
        elif answer.reason is None:
            if answer.model != kind or answer.values != right_values(kind, number, answer.version):
                what = f"{answer.model} {answer.version}: {answer.values}"
                self.problems.add("wrong value", f"job {number} ({kind}) got {what}, {answer.position}")
            if kind == MODEL:
                self._saw(answer)

    def _saw(self, answer: Answer) -> None:
        seen = self._versions.setdefault(answer.version, Seen(answer, answer))
        seen.count += 1
        if answer.answered_ms < seen.first.answered_ms:
            seen.first = answer
        if answer.made_ms > seen.youngest.made_ms:
            seen.youngest = answer
