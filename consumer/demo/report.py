"""What the demo found, and whether every number adds up. Pure: what was sent and what came back in, a report out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Job:
    """A job to publish. `id` is its correlation id and its key, `value` its body.

    `answer` is what the model said when it was called directly, `label` the truth; a job that must fail has `expected`
    instead, and `case` says in words what is wrong with it.
    """

    id: str
    model: str
    value: bytes = field(repr=False)
    label: int | None = None
    answer: int | None = None
    expected: Reason | None = None
    case: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A job as the broker acknowledged it. `position` is `topic/partition/offset`; `at_ms` its record's timestamp."""

    job: Job
    position: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A prediction (`answer`: its highest class) or a dead letter (`reason`, `message`), by correlation id."""

    id: str
    position: str
    at_ms: int
    answer: int | None = None
    reason: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model's line. Accuracies are shares of the labelled jobs; times are publish to answer, of a burst."""

    model: str
    format: str
    jobs: int
    predictions: int
    dead_letters: int
    accuracy: float
    direct_accuracy: float
    different_answers: int
    jobs_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A job that had to fail, and how it did."""

    case: str
    expected: str
    reason: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """The whole result; it is good when `problems` is empty.

    `loads` counts, for each consumer process, how often it loaded each model; `exit_codes` is None for one that was
    left running.
    """

    models: tuple[ModelReport, ...]
    failed: tuple[Failed, ...]
    jobs: int
    predictions: int
    dead_letters: int
    duplicates: int
    seconds: float
    jobs_per_s: float
    loads: Mapping[str, Mapping[str, int]]
    exit_codes: Mapping[str, int | None]
    problems: tuple[str, ...] = field(default=())


def build(
    *,
    formats: Mapping[str, str],
    sent: Sequence[Sent],
    outcomes: Sequence[Outcome],
    loads: Mapping[str, Mapping[str, int]],
    exit_codes: Mapping[str, int | None],
    seconds: float,
) -> Report:
    """Bring both sides together. `formats` names the models that were trained; `seconds` is the whole run."""
    by_position = {outcome.position: outcome for outcome in outcomes}  # at least once: a repeat replaces its twin
    answered = [(record, by_position.get(record.position)) for record in sent]
    return Report(
        models=tuple(
            _model(name, kind, [pair for pair in answered if pair[0].job.model == name and not pair[0].job.expected])
            for name, kind in formats.items()
        ),
        failed=tuple(
            Failed(job.case, job.expected, outcome.reason if outcome else None, outcome.message if outcome else "")
            for job, outcome in ((record.job, outcome) for record, outcome in answered)
            if job.expected
        ),
        jobs=len(sent),
        predictions=sum(outcome is not None and outcome.reason is None for _, outcome in answered),
        dead_letters=sum(outcome is not None and outcome.reason is not None for _, outcome in answered),
        duplicates=len(outcomes) - len(by_position),
        seconds=seconds,
        jobs_per_s=_rate(answered),
        loads=loads,
        exit_codes=exit_codes,
        problems=(
            *_wrong_answers(answered),
            *_wrong_outcomes(sent, outcomes),
            *_wrong_loads(formats, loads),
            *(f"{process} ended with exit code {code}" for process, code in exit_codes.items() if code),
        ),
    )


def _model(name: str, kind: str, answered: Sequence[tuple[Sent, Outcome | None]]) -> ModelReport:
    predicted = [(record, outcome) for record, outcome in answered if outcome and outcome.reason is None]
    latencies = sorted(outcome.at_ms - record.at_ms for record, outcome in predicted)
    return ModelReport(
        model=name,
        format=kind,
        jobs=len(answered),
        predictions=len(predicted),
        dead_letters=sum(outcome is not None and outcome.reason is not None for _, outcome in answered),
        accuracy=_share(sum(outcome.answer == record.job.label for record, outcome in predicted), len(answered)),
        direct_accuracy=_share(sum(record.job.answer == record.job.label for record, _ in answered), len(answered)),
        different_answers=sum(outcome.answer != record.job.answer for record, outcome in predicted),
        jobs_per_s=_rate(answered),
        p50_ms=_percentile(latencies, 50),
        p99_ms=_percentile(latencies, 99),
    )


def _wrong_answers(answered: Sequence[tuple[Sent, Outcome | None]]) -> Iterator[str]:
    wrong = Counter[str]()
    for record, outcome in answered:
        job = record.job
        what = job.case or job.model
        if outcome is None:
            wrong[f"{what}: no answer"] += 1
        elif outcome.id != job.id:
            wrong[f"{what}: answered under another correlation id"] += 1
        elif outcome.reason != job.expected:
            wrong[f"{what}: {outcome.reason or 'a prediction'} instead of {job.expected or 'a prediction'}"] += 1
        elif outcome.answer != job.answer:
            wrong[f"{what}: not the answer the model gives directly"] += 1
    for what, count in wrong.items():
        yield f"{what} ({count} of {len(answered)} jobs)"


def _wrong_outcomes(sent: Sequence[Sent], outcomes: Sequence[Outcome]) -> Iterator[str]:
    kinds: dict[str, set[str | None]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.position, set()).add(outcome.reason)
    if several := sum(len(reasons) > 1 for reasons in kinds.values()):
        yield f"{several} jobs have several different outcomes"
    if strangers := len(kinds.keys() - {record.position for record in sent}):
        yield f"{strangers} outcomes of jobs that were never sent"


def _wrong_loads(formats: Mapping[str, str], loads: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for process, counts in loads.items():
        for model in formats.keys() | counts.keys():
            if (count := counts.get(model, 0)) != (model in formats):
                yield f"{process} loaded {model} {count} times instead of {int(model in formats)}"


def _rate(answered: Sequence[tuple[Sent, Outcome | None]]) -> float:
    """Jobs answered a second, from the first one published to the last one answered."""
    done = [(record.at_ms, outcome.at_ms) for record, outcome in answered if outcome]
    if not done:
        return 0.0
    return len(done) * 1000 / max(1, max(end for _, end in done) - min(start for start, _ in done))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percentile(ordered: Sequence[int], percent: int) -> float:
    """Nearest rank."""
    return float(ordered[max(0, -(-len(ordered) * percent // 100) - 1)]) if ordered else 0.0
