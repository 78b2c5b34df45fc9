"""Python's garbage collector, kept off the hot path.

Jobs are freed by their reference counts. The collector would walk all that a process has imported and loaded (84,000
objects, 55 to 75 ms with everything standing still) again and again, and all that is in hand several times over.

What kafka-python leaves behind in cycles is few objects with many bytes: what it has fetched, some sixty objects for
1 MB. So it is also collected by the bytes that were read.
"""

import gc

YOUNG = 250_000
"""How many more containers there have to be than at the last collection of the youngest. The jobs that may be in hand
at a time have fewer; what reaches this was left behind in cycles."""
READ_BYTES = 64 * 1024**2
"""Of jobs, between two collections: what they leave behind is twice as much at the most."""


class Collector:
    """Leaves what there is by now out of all later collections, and has fewer of them. To be made before the loop."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, 10, 10)
        self._left = READ_BYTES

    def read(self, nbytes: int) -> None:
        """To be told of the bytes of jobs that were read."""
        self._left -= nbytes
        if self._left <= 0:
            self._left = READ_BYTES
            gc.collect()
