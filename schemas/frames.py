"""What the msgpack bodies of a kind share: all their bytes but the data of their tensors, and their id.

Publishers send the same document again and again with other numbers in it. Once one has been read and found good, a
body of the same length with the same bytes around its data is as good: it is compared, not read.
"""

from dataclasses import dataclass

from msgpack import Unpacker, UnpackException

from schemas.msgpack_body import BIN_HEADERS

MOST_FIXED = 4 * 1024
"""Bytes of a frame; what is longer is read each time."""

Place = tuple[int, int]
"""Where something begins and ends in a body."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes around what differs: `first`, `last` and what is `between`. `data` is where each tensor's is, in order;
    `text` where the id is."""

    first: bytes
    between: tuple[tuple[int, int, bytes], ...]
    last: bytes
    data: tuple[Place, ...]
    text: Place | None

    def holds(self, body: bytes) -> bool:
        """Whether a body of the same length is of this frame."""
        return (
            body.startswith(self.first)
            and body.endswith(self.last)
            and (not self.between or all(body[start:end] == fixed for start, end, fixed in self.between))
        )


def frame_of(body: bytes) -> Frame | None:
    """The frame of a body that `decode_request` has taken. None: it has none, as where its data is a list."""
    try:
        data, text = _open_places(body)
    except (ValueError, TypeError, LookupError, UnpackException):
        return None
    edges = [0, *[edge for place in sorted(data if text is None else [*data, text]) for edge in place], len(body)]
    fixed = [(start, end, body[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    if not data or sum([len(piece) for _, _, piece in fixed]) > MOST_FIXED:
        return None
    return Frame(fixed[0][2], tuple(fixed[1:-1]), fixed[-1][2], tuple(data), text)


def _open_places(body: bytes) -> tuple[list[Place], Place | None]:
    """Where the data of the tensors is, and the id. ValueError: it is not raw, or not known by its place alone."""
    unpacker = Unpacker(max_buffer_size=max(len(body), 1), strict_map_key=False)
    unpacker.feed(body)
    found: dict[object, list[Place]] = {}
    for _ in range(unpacker.read_map_header()):
        key = unpacker.unpack()
        if key in found:
            raise ValueError("a key comes twice: the last of them counts")
        found[key] = []
        if key == "inputs":
            found[key] = [_data(unpacker, body) for _ in range(unpacker.read_array_header())]
        else:
            start = unpacker.tell()
            unpacker.skip()
            if key == "id":
                found[key] = _text(body, start, unpacker.tell())
    return found.get("inputs", []), next(iter(found.get("id", [])), None)


def _data(unpacker: Unpacker, body: bytes) -> Place:
    place: Place | None = None
    for _ in range(unpacker.read_map_header()):
        key = unpacker.unpack()
        start = unpacker.tell()
        unpacker.skip()
        if key == "data":
            if place is not None:
                raise ValueError("two data of one tensor: the last of them counts")
            place = start + BIN_HEADERS[body[start]], unpacker.tell()
    if place is None:
        raise ValueError("a tensor without data")
    return place


def _text(body: bytes, start: int, end: int) -> list[Place]:
    """Of a string of up to 255 bytes; a longer one, or none, is part of the frame."""
    if body[start] & 0xE0 == 0xA0:
        return [(start + 1, end)]
    return [(start + 2, end)] if body[start] == 0xD9 else []
