"""Measuring a loaded model: which sizes, and when it ends."""

import sys
import threading
from collections.abc import Iterator

import pytest

from consumer.models.backend import load_tensorflow
from consumer.models.measure import MAX_BYTES, MAX_CALLS, measure
from consumer.models.opening import Opener, OpenOptions
from consumer.models.runtime import Loaded
from consumer.models.store import locate
from tests import models_zoo as zoo


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """FP32 [rows, 1] -> FP32 [rows, 1,000,000]: 4 MB a row."""
    tf = load_tensorflow()
    folder = tmp_path_factory.mktemp("store") / "m" / "1"
    zoo.put_module(
        folder, lambda x: {"y": tf.tile(x, [1, 1_000_000])}, x=tf.TensorSpec([None, 1], tf.float32, name="x")
    )
    opener = Opener(OpenOptions(frozenset(), sys.maxsize), tmp_path_factory.mktemp("cache"), 1 << 30)
    located = locate(folder, "m", 1)
    assert located is not None
    model = opener.open(located, threading.Event())
    yield model
    model.close()
    opener.close(10)


class Clock:
    """Each look at it is a step later."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_sizes_are_measured_once_each_and_ascending(loaded: Loaded) -> None:
    found = list(measure(loaded, (4, 1, 2, 2), 1e6, Clock(1e3)))
    assert [latency.rows for latency in found] == [1, 2, 4]
    assert {latency.ms for latency in found} == {1e6}  # each call is between two looks at the clock
    assert found[2].rows_per_s == pytest.approx(0.004)


def test_what_would_take_too_much_memory_is_left_out(loaded: Loaded) -> None:
    rows = MAX_BYTES // 4_000_000
    assert [latency.rows for latency in measure(loaded, (1, rows, rows + 1), 1e9, Clock(1e6))] == [1, rows]


def test_what_would_not_fit_into_the_time_is_left_out(loaded: Loaded) -> None:
    assert [latency.rows for latency in measure(loaded, (1, 2, 64), 10.0, Clock(0.5))] == [1, 2]


def test_one_size_is_measured_however_little_time_there_is(loaded: Loaded) -> None:
    [latency] = measure(loaded, (1, 2), 0.0, Clock(1.0))
    assert (latency.rows, latency.calls) == (1, 1)


def test_calls_are_bounded(loaded: Loaded) -> None:
    [latency] = measure(loaded, (1,), 1e9, Clock(1e-9))
    assert latency.calls == MAX_CALLS
