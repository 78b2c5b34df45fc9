"""A set of 64-bit digests for a whole topic of them: 8 bytes each, where Python's takes 60 and more."""

import numpy as np

_LEAST = 65_536
_SHARE = 16


class Seen:
    """Sorted digests, and a small set of those that came last, merged in when it has grown."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._last: set[int] = set()

    def add(self, digest: int) -> bool:
        """Add a digest; False where it was here already."""
        if digest in self._last:
            return False
        place = int(np.searchsorted(self._sorted, np.uint64(digest)))
        if place < len(self._sorted) and int(self._sorted[place]) == digest:
            return False
        self._last.add(digest)
        if len(self._last) >= max(_LEAST, len(self._sorted) // _SHARE):
            last = np.fromiter(self._last, np.uint64, len(self._last))
            last.sort()
            # Two sorted runs: a stable sort merges them.
            self._sorted = np.concatenate([self._sorted, last])
            self._sorted.sort(kind="stable")
            self._last.clear()
        return True
