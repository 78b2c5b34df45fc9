"""What is written beside committed offsets."""

import pytest

from consumer.delivery.marks import Mark


@pytest.mark.parametrize("mark", [Mark(), Mark(starts=1), Mark(starts=37), Mark(alone=True)], ids=str)
def test_a_mark_is_read_as_it_was_written(mark: Mark) -> None:
    assert Mark.read(str(mark)) == mark


@pytest.mark.parametrize(
    "text", ["", "loadonce", "loadonce starts=", "loadonce starts=-1", "loadonce starts=99999", "x"]
)
def test_what_others_write_is_no_mark(text: str) -> None:
    assert Mark.read(text) == Mark()


def test_a_mark_that_is_counted_on_stays_readable() -> None:
    assert Mark.read(str(Mark(starts=12_345))) == Mark(starts=9_999)


def test_no_mark_is_no_text() -> None:
    assert str(Mark()) == ""
