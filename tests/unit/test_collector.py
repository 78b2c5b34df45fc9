"""What is left behind in cycles is collected by the bytes that were read, however few objects it is."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from consumer.collector import READ_BYTES, YOUNG, Collector


class Left:
    """Something that only the collector frees."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_few_objects_with_many_bytes_are_collected() -> None:
    collector = Collector()
    assert gc.get_threshold()[0] == YOUNG
    for _ in range(3):
        left = weakref.ref(Left())
        collector.read(READ_BYTES - 1)
        assert left() is not None
        collector.read(1)
        assert left() is None


def test_what_was_there_before_is_left_out() -> None:
    Collector()
    assert gc.get_freeze_count() > 0
    assert len(gc.get_objects()) < YOUNG
