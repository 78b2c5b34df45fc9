"""What this process writes beside a committed offset: how often reading has begun there, and what was tried alone.

The metadata of an offset is the only storage that every replica sees and that moves with the partition.
"""

import re
from dataclasses import dataclass

_STARTS = re.compile("loadonce starts=([0-9]{1,4})")
_ALONE = "loadonce alone"


@dataclass(frozen=True, slots=True)
class Mark:
    """`starts`: processes that began at this offset and have not got further. `alone`: the job at this very offset was
    given to a process that had no other in hand, and has not been answered."""

    starts: int = 0
    alone: bool = False

    @classmethod
    def read(cls, metadata: str) -> "Mark":
        """What was written beside an offset; nothing of ours is no mark."""
        if metadata == _ALONE:
            return cls(alone=True)
        match = _STARTS.fullmatch(metadata)
        return cls(starts=int(match[1])) if match else cls()

    def __str__(self) -> str:
        """As it is written; empty where there is nothing to say."""
        if self.alone:
            return _ALONE
        return f"loadonce starts={min(self.starts, 9999)}" if self.starts else ""
