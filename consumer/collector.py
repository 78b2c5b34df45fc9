"""Python's garbage collector, kept off the hot path.

Jobs are freed by their reference counts. The collector would walk all that a process has imported and loaded (84,000
objects, 55 to 75 ms with everything standing still) again and again, and all that is in hand several times over.
"""

import gc

YOUNG = 250_000
"""How many more containers there have to be than at the last collection of the youngest. The jobs that may be in hand
at a time have fewer; what reaches this was left behind in cycles."""


def settle() -> None:
    """Leave what there is by now out of all later collections, and have fewer of them. To be called before the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
