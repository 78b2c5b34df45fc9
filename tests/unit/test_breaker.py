"""When too many jobs are dead letters."""

import pytest

from consumer.pipeline.breaker import Breaker, Circuit
from schemas.reasons import Reason


class Clock:
    """A time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(0.5, 60, clock, minimum=10, trial=4)


def bury(breaker: Breaker, jobs: int, reason: Reason = Reason.BAD_INPUT) -> None:
    for _ in range(jobs):
        breaker.buried(reason)


def test_it_opens_past_the_limit_and_not_at_it(breaker: Breaker) -> None:
    breaker.predicted(10)
    bury(breaker, 10)
    assert (breaker.circuit, breaker.exceeded, breaker.allowance) == (Circuit.CLOSED, False, None)

    bury(breaker, 1)
    assert (breaker.circuit, breaker.exceeded, breaker.allowance) == (Circuit.OPEN, True, 0)


def test_few_answers_say_nothing(breaker: Breaker) -> None:
    bury(breaker, 9)
    assert not breaker.exceeded
    bury(breaker, 1)
    assert breaker.exceeded


def test_what_is_older_than_the_window_does_not_count(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 9)
    clock.now += 61
    bury(breaker, 9)
    assert not breaker.exceeded
    assert breaker.share == 1
    clock.now += 30
    bury(breaker, 1)
    assert breaker.exceeded


def test_the_share_forgets_as_time_goes_by(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 3)
    clock.now += 30
    breaker.predicted(1)
    assert breaker.share == 0.75
    clock.now += 35
    assert not breaker.exceeded
    assert breaker.share == 0  # three answers are 65 s old, one is 35


def test_after_the_window_a_few_try_and_it_closes(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    breaker.predicted(100)  # read before it opened: tells nothing new
    clock.now += 59
    assert breaker.allowance == 0
    clock.now += 1
    assert (breaker.circuit, breaker.allowance) == (Circuit.HALF_OPEN, 4)
    assert breaker.exceeded

    breaker.took(3)
    assert breaker.allowance == 1
    breaker.took(5)
    assert breaker.allowance == 0
    breaker.predicted(2)
    bury(breaker, 1)
    assert breaker.allowance == 0
    breaker.predicted(1)
    assert [breaker.circuit, breaker.allowance] == [Circuit.CLOSED, None]


def test_it_opens_again_where_the_trial_fails(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    breaker.took(4)
    breaker.predicted(1)
    bury(breaker, 3)
    assert (breaker.circuit, breaker.allowance) == (Circuit.OPEN, 0)
    clock.now += 60
    assert (breaker.circuit, breaker.allowance) == (Circuit.HALF_OPEN, 4)


def test_a_trial_that_nobody_answers_is_followed_by_another(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    assert breaker.circuit is Circuit.HALF_OPEN
    breaker.took(4)
    clock.now += 59
    assert breaker.allowance == 0
    clock.now += 1
    assert breaker.allowance == 4


def test_a_trial_goes_on_where_jobs_are_few(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    for window in range(4):
        assert (breaker.circuit, breaker.allowance) == (Circuit.HALF_OPEN, 4 - window)
        breaker.took(1)
        breaker.predicted(1)
        clock.now += 60
    assert breaker.circuit is Circuit.CLOSED


def test_a_trial_fails_where_jobs_are_few(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    for _ in range(3):
        assert breaker.circuit is Circuit.HALF_OPEN
        breaker.took(1)
        bury(breaker, 1)
        clock.now += 60
    breaker.predicted(1)
    assert (breaker.circuit, breaker.allowance) == (Circuit.OPEN, 0)


def test_jobs_of_a_trial_that_are_not_answered_in_a_window_are_replaced(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    assert breaker.allowance == 4
    breaker.took(4)
    breaker.predicted(1)
    clock.now += 59
    assert breaker.allowance == 0
    clock.now += 1
    assert breaker.allowance == 3


def test_expired_jobs_do_not_count(breaker: Breaker) -> None:
    bury(breaker, 1_000, Reason.EXPIRED)
    assert not breaker.exceeded


def test_expired_jobs_are_no_trial(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    assert breaker.allowance == 4
    breaker.took(4)
    bury(breaker, 3, Reason.EXPIRED)
    assert (breaker.circuit, breaker.allowance) == (Circuit.HALF_OPEN, 3)


def test_without_a_limit_it_never_opens(clock: Clock) -> None:
    breaker = Breaker(None, 60, clock)
    bury(breaker, 10_000)
    assert (breaker.exceeded, breaker.allowance) == (False, None)


def test_memory_is_bounded_however_long_it_runs(breaker: Breaker, clock: Clock) -> None:
    for _ in range(10_000):
        clock.now += 0.1
        breaker.predicted(3)
    assert len(breaker._buckets) <= 21


def test_memory_is_bounded_however_long_a_trial_takes(breaker: Breaker, clock: Clock) -> None:
    bury(breaker, 10)
    clock.now += 60
    for _ in range(10_000):
        clock.now += 1
        breaker.predicted(0)
    assert breaker.circuit is Circuit.HALF_OPEN
    assert not breaker._buckets
