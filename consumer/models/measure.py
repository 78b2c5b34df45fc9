"""How long a loaded model takes for batches of several sizes."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from numpy.typing import NDArray

from consumer.models.engine import EngineError
from consumer.models.runtime import Loaded, zeros

ROWS = (1, 8, 32, 128, 256, 1024)
MAX_BYTES = 256 * 1024**2
"""Of inputs, and of outputs, in one call."""
MAX_CALLS = 1000


@dataclass(frozen=True, slots=True)
class Latency:
    """One batch size: the median milliseconds of `calls` calls."""

    rows: int
    ms: float
    calls: int

    @property
    def rows_per_s(self) -> float:
        """Rows through one caller that calls again at once."""
        return self.rows / self.ms * 1e3


def measure(
    loaded: Loaded, sizes: Sequence[int], budget_s: float, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Latency]:
    """Call the model with zeros (BYTES: empty; varying dimensions: 1), the sizes ascending, each as it is measured.

    A model of fixed rows is measured with those. Ends early where a size would not fit into what is left of the time,
    or into MAX_BYTES, and without anything for a model that takes no zeros. EngineError: a later call failed.
    """
    sizes = sorted(set(sizes)) if loaded.signature.rows is None else [loaded.signature.rows]
    ends = clock() + budget_s
    row_s = 0.0
    row_bytes = _nbytes(zeros(spec, 1) for spec in loaded.signature.inputs)
    for index, rows in enumerate(sizes):
        began = clock()
        share = (ends - began) / (len(sizes) - index)
        if index and (2 * rows * row_s > ends - began or rows * row_bytes > MAX_BYTES):
            return
        inputs = {spec.name: zeros(spec, rows) for spec in loaded.signature.inputs}
        try:
            outputs = loaded.predict(inputs)  # not counted: the first of its size takes memory, and compiles
        except EngineError:
            if index == 0:
                return
            raise
        times: list[float] = []
        while not times or (len(times) < MAX_CALLS and clock() - began < share):
            before = clock()
            loaded.predict(inputs)
            times.append(clock() - before)
        row_s = median(times) / rows
        row_bytes = max(row_bytes, _nbytes(outputs.values()) // rows)
        yield Latency(rows, median(times) * 1e3, len(times))


def _nbytes(arrays: Iterable[NDArray[Any]]) -> int:
    return sum(array.nbytes for array in arrays)
