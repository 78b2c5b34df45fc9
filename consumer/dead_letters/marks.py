"""What has become of each dead letter: a bit for replayed and one for discarded, in chunks that a record can hold."""

import re
from collections.abc import Iterator
from enum import StrEnum

CHUNK = 8_192
"""Offsets whose marks are one record. Small, since each transaction writes those it touches whole; a million dead
letters are 122 chunks."""

_PLANE = CHUNK // 8
_KEY = re.compile(r"([0-9]{1,10})/([0-9]{1,16})")


class State(StrEnum):
    """What has become of a dead letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class Marks:
    """The states of a topic's dead letters, 2 KiB for each CHUNK offsets of which any is handled."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[int, int], bytearray] = {}

    def __getitem__(self, place: tuple[int, int]) -> State:
        """The state of the dead letter at (partition, offset)."""
        partition, offset = place
        chunk = self._chunks.get((partition, offset // CHUNK))
        if chunk is None:
            return State.OPEN
        byte, bit = divmod(offset % CHUNK, 8)
        if chunk[byte] >> bit & 1:
            return State.REPLAYED
        return State.DISCARDED if chunk[_PLANE + byte] >> bit & 1 else State.OPEN

    def set(self, partition: int, offset: int, state: State) -> str:
        """Mark a dead letter; the key of the record to be written for that, whose value is `value(key)`."""
        number = offset // CHUNK
        chunk = self._chunks.setdefault((partition, number), bytearray(2 * _PLANE))
        byte, bit = divmod(offset % CHUNK, 8)
        chunk[byte] &= ~(1 << bit)
        chunk[_PLANE + byte] &= ~(1 << bit)
        if state is not State.OPEN:
            chunk[byte if state is State.REPLAYED else _PLANE + byte] |= 1 << bit
        return f"{partition}/{number}"

    def value(self, key: str) -> bytes:
        """The chunk of this key as a record holds it."""
        return bytes(self._chunks[_parse(key)])

    def load(self, key: str, value: bytes | None) -> None:
        """Take a chunk over from a record. ValueError where it is none."""
        place = _parse(key)
        if value is None:
            self._chunks.pop(place, None)
        elif len(value) == 2 * _PLANE:
            self._chunks[place] = bytearray(value)
        else:
            raise ValueError("not the marks of a chunk")

    @staticmethod
    def has_key(key: str) -> bool:
        """Whether this is the key of a chunk."""
        return bool(_KEY.fullmatch(key))

    @staticmethod
    def meaning(key: str) -> str:
        """Which dead letters the chunk of this key is about."""
        partition, number = _parse(key)
        return f"the dead letters {partition}/{number * CHUNK} to {partition}/{(number + 1) * CHUNK - 1}"

    def before(self, begins: dict[int, int]) -> Iterator[str]:
        """The keys of chunks all of whose dead letters are gone, where partitions now begin at these offsets."""
        for partition, number in self._chunks:
            if (number + 1) * CHUNK <= begins.get(partition, 0):
                yield f"{partition}/{number}"


def _parse(key: str) -> tuple[int, int]:
    match = _KEY.fullmatch(key)
    if not match:
        raise ValueError("not the key of a chunk")
    return int(match[1]), int(match[2])
