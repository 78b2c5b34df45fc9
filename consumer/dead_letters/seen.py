"""Where each of a whole topic of 64-bit digests came first: 16 bytes each, where Python's dict takes 150 and more."""

import numpy as np

_LEAST = 65_536
_SHARE = 16
_OFFSET_BITS = 48  # a million records a second for nine years


class Seen:
    """Sorted digests with their places, and a small dict of those that came last, merged in when it has grown."""

    def __init__(self) -> None:
        self._digests = np.empty(0, np.uint64)
        self._places = np.empty(0, np.uint64)
        self._last: dict[int, int] = {}

    def first(self, digest: int, place: tuple[int, int]) -> tuple[int, int] | None:
        """The (partition, offset) at which this digest came before; None where it is new, and is kept with `place`."""
        known = self._last.get(digest)
        if known is None:
            known = self._merged(digest)
        if known is not None:
            return divmod(known, 1 << _OFFSET_BITS)
        partition, offset = place
        self._last[digest] = partition << _OFFSET_BITS | offset
        if len(self._last) >= max(_LEAST, len(self._digests) // _SHARE):
            self._merge()
        return None

    def _merged(self, digest: int) -> int | None:
        index = int(np.searchsorted(self._digests, np.uint64(digest)))
        if index < len(self._digests) and int(self._digests[index]) == digest:
            return int(self._places[index])
        return None

    def _merge(self) -> None:
        last = np.array(sorted(self._last.items()), np.uint64)
        indices = np.searchsorted(self._digests, last[:, 0])
        self._digests = np.insert(self._digests, indices, last[:, 0])
        self._places = np.insert(self._places, indices, last[:, 1])
        self._last.clear()
