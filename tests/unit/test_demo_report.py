"""The demo's report: the numbers, and that each thing that can go wrong is seen."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from consumer.demo.report import Job, Outcome, Report, Sent, build
from schemas.reasons import Reason

FORMATS = {"a": "keras", "b": "h5"}


def sent(number: int, model: str = "a", **fields: Any) -> Sent:
    job = Job(f"{model}-{number}", model, b"", **{"label": 1, "answer": 1} | fields)
    return Sent(job, f"jobs/0/{number}", at_ms=1000)


def outcome(of: Sent, **fields: Any) -> Outcome:
    answer = None if of.job.expected else of.job.answer
    return replace(Outcome(of.job.id, of.position, 1010, answer, of.job.expected, "why"), **fields)


JOBS = [
    sent(0),
    sent(1, answer=0),
    sent(2, "b"),
    sent(3, "nobody", label=None, answer=None, expected=Reason.UNKNOWN_MODEL, case="stranger"),
]


def report(
    outcomes: list[Outcome] | None = None, *, jobs: list[Sent] = JOBS, loads: Any = None, exit_code: int | None = 0
) -> Report:
    return build(
        formats=FORMATS,
        sent=jobs,
        outcomes=[outcome(job) for job in jobs] if outcomes is None else outcomes,
        loads={"one": {"a": 1, "b": 1}} if loads is None else loads,
        exit_codes={"one": exit_code},
        seconds=1,
    )


def test_what_adds_up() -> None:
    good = report()

    assert good.problems == ()
    assert (good.jobs, good.predictions, good.dead_letters, good.duplicates) == (4, 3, 1, 0)
    assert [(m.model, m.jobs, m.predictions, m.accuracy, m.direct_accuracy) for m in good.models] == [
        ("a", 2, 2, 0.5, 0.5),
        ("b", 1, 1, 1.0, 1.0),
    ]
    [failed] = good.failed
    assert (failed.case, failed.expected, failed.reason, failed.message) == (
        "stranger",
        "unknown-model",
        "unknown-model",
        "why",
    )


def test_percentiles_and_rates() -> None:
    jobs = [sent(number) for number in range(100)]
    measured = report([outcome(job, at_ms=1001 + number) for number, job in enumerate(jobs)], jobs=jobs)

    assert measured.models[0].p50_ms == 50
    assert measured.models[0].p99_ms == 99
    assert measured.models[0].jobs_per_s == pytest.approx(1000)


def test_a_duplicate_is_counted_and_forgiven() -> None:
    twice = report([outcome(job) for job in [*JOBS, JOBS[0]]])

    assert (twice.duplicates, twice.predictions, twice.problems) == (1, 3, ())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o: o[1:], "a: no answer"),
        (lambda o: [replace(o[0], id="b-2"), *o[1:]], "another correlation id"),
        (lambda o: [replace(o[0], answer=0), *o[1:]], "not the answer the model gives directly"),
        (lambda o: [replace(o[0], answer=None, reason="bad-input"), *o[1:]], "bad-input instead of a prediction"),
        (lambda o: [*o[:3], replace(o[3], reason="bad-body")], "stranger: bad-body instead of unknown-model"),
        (lambda o: [*o[:3], replace(o[3], reason=None, answer=1)], "stranger: a prediction instead of unknown-model"),
        (lambda o: [*o, replace(o[0], answer=None, reason="poison")], "several different outcomes"),
        (lambda o: [*o, replace(o[0], position="jobs/0/99")], "never sent"),
    ],
)
def test_a_wrong_outcome_is_a_problem(spoil: Callable[[list[Outcome]], list[Outcome]], said: str) -> None:
    assert any(said in problem for problem in report(spoil([outcome(job) for job in JOBS])).problems)


@pytest.mark.parametrize(
    ("loads", "said"),
    [
        ({"one": {"a": 2, "b": 1}}, "one loaded a 2 times"),
        ({"one": {"a": 1}}, "one loaded b 0 times"),
        ({"one": {"a": 1, "b": 1, "c": 1}}, "one loaded c 1 times"),
    ],
)
def test_a_wrong_load_is_a_problem(loads: dict[str, dict[str, int]], said: str) -> None:
    [problem] = report(loads=loads).problems

    assert said in problem


def test_a_wrong_exit_code_is_a_problem() -> None:
    assert report(exit_code=70).problems == ("one ended with exit code 70",)
    assert report(exit_code=None).problems == ()
