"""One way to open a model on a thread of a process, while a small model is called every millisecond on another.

    python -m benchmarks.ticker WAY SMALL BIG SMALL_INPUT SMALL_OUTPUT BIG_INPUT BIG_OUTPUT

The ways: `savedmodel` (tf.saved_model.load), `keras` (keras.models.load_model), `c-api` (loadonce's engine). SMALL and
BIG are folders, the others names of tensors, which only the C API asks for. Prints the milliseconds that the calls came
late or took, idle and while loading, as JSON.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TICK_S = 0.001
IDLE_S = 3.0
LOADS = 5

Call = Callable[[], Any]
Load = Callable[[], Any]


def tensorflow_ways(small: Path, big: Path, *, keras: bool) -> tuple[Call, Load]:
    """Calls go through the concrete function, the fastest way that the Python package has."""
    import tensorflow as tf  # noqa: PLC0415 - not where the C API is measured

    opened = tf.saved_model.load(str(small))
    function = opened.signatures["serving_default"]
    features = tf.zeros((1, 4))
    if keras:
        import keras as library  # noqa: PLC0415

        return lambda: (opened, function(features=features)), lambda: library.models.load_model(big / "model.keras")
    return lambda: (opened, function(features=features)), lambda: tf.saved_model.load(str(big))


def c_api(small: Path, big: Path, tensors: Sequence[str]) -> tuple[Call, Load]:
    """Through the engine, without the Python package."""
    from consumer.models.engine import Session, Threads  # noqa: PLC0415 - not where the Python package is measured

    small_input, small_output, big_input, big_output = tensors
    session = Session.open(small, [small_input], [small_output], Threads())
    features = np.zeros((1, 4), np.float32)

    def load() -> None:
        Session.open(big, [big_input], [big_output], Threads()).close()

    return lambda: session.run([features]), load


def ticks(call: Call, ending: Callable[[], bool]) -> list[float]:
    """Call every millisecond until `ending`; milliseconds from when each was due to its end."""
    found = []
    due = time.perf_counter()
    while not ending():
        due = max(due + TICK_S, time.perf_counter() - TICK_S)  # what was missed in a stall is not made up for
        time.sleep(max(0.0, due - time.perf_counter()))
        began = min(due, time.perf_counter())
        call()
        found.append((time.perf_counter() - began) * 1000)
    return found


def main(way: str, small: str, big: str, *tensors: str) -> None:
    """Measure and print."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if way == "c-api":
        call, load = c_api(Path(small), Path(big), tensors)
    else:
        call, load = tensorflow_ways(Path(small), Path(big), keras=way == "keras")
    load()  # what is slow only once
    for _ in range(100):
        call()
    end = time.perf_counter() + IDLE_S
    idle = ticks(call, lambda: time.perf_counter() >= end)
    seconds: list[float] = []

    def loads() -> None:
        for _ in range(LOADS):
            began = time.perf_counter()
            load()
            seconds.append(time.perf_counter() - began)

    thread = threading.Thread(target=loads)
    thread.start()
    loading = ticks(call, lambda: not thread.is_alive())
    sys.stdout.write(json.dumps({"idle": idle, "loading": loading, "load_seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
