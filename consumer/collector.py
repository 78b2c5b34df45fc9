"""Python's garbage collector, kept off the hot path.

Jobs are freed by their reference counts. The collector would walk all that a process has imported and loaded (84,000
objects, 55 to 75 ms with everything standing still) again and again, and all that is in hand several times over.
"""

import gc

YOUNG = 50_000
"""New containers between two collections of the youngest; 700 by default, which is what thirty jobs need."""


def settle() -> None:
    """Leave what there is by now out of all later collections, and have fewer of them. To be called before the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
