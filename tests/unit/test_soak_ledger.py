"""What a soak looks for is found in made-up outcomes: what is lost, twice, wrong, or of a wrong version."""

from dataclasses import replace
from itertools import islice

import msgpack
import pytest

from tests import stores
from tests.soak.chaos import KINDS, VERSIONS, good_versions, steps
from tests.soak.jobs import BAD, BAD_SHARE, MODELS, kind_of, numbered, record, right_values
from tests.soak.ledger import Answer, Ledger, Problems, Span
from tests.soak.report import Run, report
from tests.swaps import MODEL

SEED = 7
JOBS = 400
SERVED = {1: Span(0, 2_000_000), 3: Span(2_000_000, 9_000_000)}  # 2 is corrupt
RUN = Run(
    delivery="exactly-once",
    seed=SEED,
    minutes=1,
    published=JOBS,
    done={"kill": 3},
    ended={},
    said={},
    longest_pause_s=2.5,
    paused_at_s=17,
    settled_s=1,
    served=SERVED,
    corrupt={2},
)


def right(number: int) -> Answer:
    """What becomes of a job where all goes well; a job is made every 10 s, and answered in one."""
    kind = kind_of(SEED, number)
    answer = Answer(number, number * 10_000, number * 10_000 + 1_000, f"predictions/0/{number}", b"jobs/0/%d" % number)
    if kind in BAD:
        return replace(answer, reason=BAD[kind])
    version = (3 if answer.made_ms >= 2_000_000 else 1) if kind == MODEL else 1
    return replace(answer, model=kind, version=version, values=right_values(kind, number, version))


def outcomes(**changed: Answer | None) -> list[Answer]:
    """All right, but for those by number that are changed, or left out."""
    every: dict[int, Answer | None] = {number: right(number) for number in range(JOBS)}
    every |= {int(name[1:]): answer for name, answer in changed.items()}
    return [answer for answer in every.values() if answer is not None]


def settled(answers: list[Answer], *, exactly_once: bool = True, published: int = JOBS) -> tuple[Ledger, Problems]:
    ledger = Ledger(SEED, exactly_once=exactly_once)
    for answer in answers:
        ledger.take(answer)
    return ledger, ledger.settle(published, SERVED)


def first(kind: str, *, after_ms: int = 0) -> int:
    """The first job of a kind, made after a time."""
    return next(number for number in range(JOBS) if kind_of(SEED, number) == kind and number * 10_000 > after_ms)


def test_where_all_is_right_it_adds_up() -> None:
    ledger, problems = settled(outcomes())
    text, adds_up = report(RUN, ledger, [problems, Problems()])
    assert adds_up
    assert ledger.predictions.total() + ledger.dead_letters.total() == JOBS
    assert set(ledger.predictions) == set(MODELS)
    assert set(ledger.dead_letters) == set(BAD.values())
    assert set(ledger.versions) == {1, 3}
    assert ledger.longest_wait_ms == 1_000
    assert text.endswith("it adds up")
    assert "WRONG" not in text


PLUS_EARLY, PLUS_LATE = first(MODEL), first(MODEL, after_ms=2_100_000)
GOOD, BAD_ONE = first(stores.DOUBLE), first("wrong input")


def plus(number: int, version: int) -> Answer:
    return replace(right(number), version=version, values=right_values(MODEL, number, version))


@pytest.mark.parametrize(
    ("changed", "kind", "example"),
    [
        ({GOOD: None}, "lost", f"jobs {GOOD}"),
        ({JOBS - 1: None}, "lost", f"jobs {JOBS - 1}"),
        ({JOBS: right(JOBS)}, "never published", f"jobs {JOBS}"),
        ({GOOD: replace(right(GOOD), values=(1.0,))}, "wrong value", f"job {GOOD} (double) got double 1: (1.0,)"),
        ({GOOD: replace(right(GOOD), values=())}, "wrong value", f"job {GOOD} (double) got double 1: ()"),
        ({GOOD: replace(right(GOOD), model=MODEL)}, "wrong value", f"job {GOOD} (double) got plus"),
        ({GOOD: replace(right(GOOD), reason="poison")}, "wrong outcome", f"job {GOOD} (double) became poison"),
        (
            {BAD_ONE: replace(right(GOOD), number=BAD_ONE, job=right(BAD_ONE).job)},
            "wrong outcome",
            f"job {BAD_ONE} (wrong input) became a prediction",
        ),
        ({PLUS_EARLY: plus(PLUS_EARLY, 2)}, "wrong version", f"job {PLUS_EARLY} by version 2, which nobody served"),
        ({PLUS_EARLY: plus(PLUS_EARLY, 3)}, "wrong version", f"job {PLUS_EARLY} by version 3 before it was served"),
        ({PLUS_LATE: plus(PLUS_LATE, 1)}, "wrong version", f"job {PLUS_LATE} by version 1, "),
        # A prediction may not say another version than the one whose numbers it holds.
        ({PLUS_LATE: replace(plus(PLUS_LATE, 1), version=3)}, "wrong value", f"job {PLUS_LATE} (plus) got plus 3"),
    ],
)
def test_each_wrong_answer_is_found(changed: dict[int, Answer | None], kind: str, example: str) -> None:
    ledger, problems = settled(outcomes(**{f"n{number}": answer for number, answer in changed.items()}))
    assert problems.counts == {kind: 1}
    assert problems.examples[kind][0].startswith(example)
    text, adds_up = report(RUN, ledger, [problems])
    assert not adds_up
    assert f"WRONG: {kind}, 1:" in text
    assert example in text


def test_an_answer_that_came_twice_is_counted_and_wrong_for_exactly_once_only() -> None:
    answers = [*outcomes(), right(GOOD), right(GOOD)]
    ledger, problems = settled(answers)
    assert problems.counts == {"answered twice": 2}
    assert ledger.duplicates == 2
    ledger, problems = settled(answers, exactly_once=False)
    assert not problems
    assert ledger.duplicates == 2
    assert report(RUN, ledger, [problems])[1]


def test_a_job_that_was_published_twice_is_answered_as_often() -> None:
    again = replace(right(GOOD), job=b"jobs/1/0")
    ledger, problems = settled([*outcomes(), again])
    assert not problems
    assert (ledger.duplicates, ledger.published_twice) == (0, 1)
    text, adds_up = report(RUN, ledger, [problems])
    assert adds_up, text
    assert settled([*outcomes(), again, again])[1].counts == {"answered twice": 1}


def test_one_lost_and_one_twice_do_not_make_up_for_each_other() -> None:
    _, problems = settled([*outcomes(**{f"n{GOOD}": None}), right(BAD_ONE)], exactly_once=False)
    assert problems.counts == {"lost": 1}


def test_what_goes_wrong_beside_the_ledger_does_not_add_up_either() -> None:
    ledger, problems = settled(outcomes())
    ended = Problems()
    ended.add("exit code", "replica 3 ended with 70")
    text, adds_up = report(RUN, ledger, [problems, ended])
    assert not adds_up
    assert "replica 3 ended with 70" in text


def test_the_bad_jobs_are_as_many_as_they_should_be_and_the_same_for_a_seed() -> None:
    kinds = [kind_of(SEED, number) for number in range(20_000)]
    assert sum(kind in BAD for kind in kinds) / len(kinds) == pytest.approx(BAD_SHARE, rel=0.1)
    assert set(kinds) == {*BAD, *MODELS}
    assert kinds == [kind_of(SEED, number) for number in range(20_000)]
    assert kinds != [kind_of(SEED + 1, number) for number in range(20_000)]


def test_a_record_says_who_it_is() -> None:
    for kind in (*BAD, *MODELS):
        number = first(kind)
        value, headers = record(SEED, number, 123)
        assert numbered(dict(headers)["correlation-id"]) == (number, 123)
        if kind != "not msgpack":
            assert msgpack.unpackb(value)["id"] == str(number)


def test_a_seed_decides_what_is_done_and_all_kinds_are() -> None:
    plan = list(islice(steps(SEED), 3 * len(KINDS)))
    assert plan == list(islice(steps(SEED), 3 * len(KINDS)))
    assert plan != list(islice(steps(SEED + 1), 3 * len(KINDS)))
    for turn in range(3):
        assert {step.kind for step in plan[turn * len(KINDS) : (turn + 1) * len(KINDS)]} == set(KINDS)


def test_the_versions_to_prepare_are_those_that_will_be_good() -> None:
    good = good_versions(SEED, 20)
    put = [step.kind for step in islice(steps(SEED), 200) if step.kind in VERSIONS]
    assert len(good) >= 10
    assert good == [version for version in range(2, good[-1] + 1) if put[version - 2] == "new version"]
