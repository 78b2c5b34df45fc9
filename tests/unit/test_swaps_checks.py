"""What the tests of swaps look for is found."""

from types import SimpleNamespace
from typing import cast

import pytest

from tests.stream import Answer, Stream
from tests.swaps import problems

SERVED = [1, 2, 4, 2]
MARKS = [(10, 2), (20, 3), (30, 4)]  # 4 was withdrawn before job 30


def stream(answered: dict[int, int | None], *, twice: int | None = None) -> Stream:
    answers = {
        number: Answer(number, version, None if version else "model-corrupt", 1, (0, number), 0)
        for number, version in answered.items()
    }
    times = dict.fromkeys(answers, 1) | ({twice: 2} if twice is not None else {})
    return cast("Stream", SimpleNamespace(published=max(answered) + 1, answers=answers, times=times))


def test_nothing_is_wrong_with_answers_of_what_was_served() -> None:
    every: dict[int, int | None] = {}
    for numbers, version in ((range(8), 1), (range(8, 19), 2), (range(19, 26), 4), (range(26, 32), 2)):
        every |= dict.fromkeys(numbers, version)
    assert problems(stream(every), SERVED, MARKS) == []


@pytest.mark.parametrize(
    ("answered", "problem"),
    [
        ({0: 1, 11: 1}, "job 11 was answered by version 1, which was not served then"),
        ({0: 1, 22: 4, 32: 4}, "job 32 was answered by version 4, which was not served then"),
        ({0: 3}, "job 0 was answered by version 3, which was not served then"),
        ({0: 2, 5: 1}, "job 5 was answered by version 1, which was not served then"),
        ({0: None}, "1 dead letters, the first: model-corrupt"),
        ({1: 1}, "1 jobs without an answer, the first is 0"),
        ({2: 1, 0: 1, 1: 1}, "job 0 of version 1 came out after a later one"),
    ],
)
def test_each_wrong_answer_is_found(answered: dict[int, int | None], problem: str) -> None:
    assert problem in problems(stream(answered), SERVED, MARKS)


def test_a_job_that_was_answered_twice_is_found() -> None:
    assert problems(stream({0: 1}, twice=0), SERVED, MARKS) == ["1 jobs answered twice, though nothing was killed"]
